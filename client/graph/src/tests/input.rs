//! Bad input: schemas, queries, resolvers.

use super::*;

fn error(query: GraphQuery) -> String {
    run(&store(), query).unwrap_err().to_string()
}

#[test]
fn queries_that_do_not_fit_the_schema_are_told_why() {
    for (query, message) in [
        (
            GraphQuery::new("invoice").fields(["id"]),
            "query: unknown entity \"invoice\"",
        ),
        (
            GraphQuery::new("LinkProductChannel").fields(["id"]),
            "query: unknown entity \"LinkProductChannel\"",
        ),
        (products(), "query: no fields are asked for"),
        (
            products().fields(["price"]),
            "query: Product has no field \"price\"",
        ),
        (products().fields([""]), "query: Product has no field \"\""),
        (
            products().fields(["prices.amount"]),
            "query: Product has no relation \"prices\" (path \"prices.amount\")",
        ),
        (
            products().fields(["title.length"]),
            "query: Product has no relation \"title\" (path \"title.length\")",
        ),
        (
            products().fields(["variants"]),
            "query: path \"variants\" ends at a relation: name its fields, or write variants.*",
        ),
        (
            products().fields(["variants.product.variants.sku"]),
            "query: path \"variants.product.variants.sku\" is a cycle: it follows \"variants\" twice",
        ),
        (
            products().fields(["a.a.a.a.a.a.a.a.a.a.a.a.a"]),
            "query: path \"a.a.a.a.a.a.a.a.a.a.a.a.a\" is longer than 12 segments",
        ),
        (
            products()
                .fields(["id"])
                .pagination(Pagination::new().order("price", Direction::Asc)),
            "query: Product has no field \"price\"",
        ),
        (
            GraphQuery::new("variant")
                .fields(["id"])
                .pagination(Pagination::new().order("stock", Direction::Asc)),
            "query: Variant cannot be sorted by \"stock\"",
        ),
    ] {
        assert_eq!(error(query.clone()), message, "{query:?}");
    }
}

#[test]
fn filters_that_make_no_sense_are_told_why() {
    for (filters, message) in [
        (
            json!(7),
            "query: filter on Product, at \"filters\": expected an object",
        ),
        (
            json!({ "price": 1 }),
            "query: Product has no field \"price\"",
        ),
        (
            json!({ "$xor": [] }),
            "query: filter on Product, at \"$xor\": unknown operator",
        ),
        (
            json!({ "$or": {} }),
            "query: filter on Product, at \"$or\": expected an array of filters",
        ),
        (
            json!({ "rank": { "$near": 1 } }),
            "query: filter on Product, at \"rank\": unknown operator",
        ),
        (
            json!({ "rank": {} }),
            "query: filter on Product, at \"rank\": expected operators such as $gt",
        ),
        (
            json!({ "rank": "1" }),
            "query: filter on Product, at \"rank\": the value does not fit the field's type or the operator",
        ),
        (
            json!({ "rank": { "$gt": null } }),
            "query: filter on Product, at \"rank\": the value does not fit the field's type or the operator",
        ),
        (
            json!({ "title": [1] }),
            "query: filter on Product, at \"title\": a value in the list does not fit the field's type",
        ),
        (
            json!({ "rank": { "$like": "1%" } }),
            "query: filter on Product, at \"rank\": $like and $ilike take a pattern, on a text field",
        ),
        (
            json!({ "variants": { "stock": 1 } }),
            "query: filter on Variant, at \"stock\": a computed field cannot be filtered by",
        ),
    ] {
        let query = products().fields(["id"]).filters(filters.clone());
        assert_eq!(error(query), message, "{filters}");
    }
    let deep = (0..40).fold(json!({}), |inner, _| json!({ "$not": inner }));
    assert_eq!(
        error(products().fields(["id"]).filters(deep)),
        "query: filter on Product, at \"filters\": nested too deeply",
    );
}

#[test]
fn schemas_that_contradict_themselves_are_told_why() {
    let build = |entities: Vec<Entity>| {
        let builder = entities
            .into_iter()
            .fold(Schema::builder(), |builder, entity| builder.entity(entity));
        builder.build().unwrap_err().to_string()
    };
    let a = || Entity::new("A");
    let link = || Entity::link("LinkAB", ("a_id", "A"), ("b_id", "B"));
    for (entities, message) in [
        (
            vec![Entity::new("A b")],
            "schema: A b: \"A b\" is not an identifier (ASCII letters, digits and _)",
        ),
        (
            vec![a().field("x;y")],
            "schema: A: \"x;y\" is not an identifier (ASCII letters, digits and _)",
        ),
        (
            vec![a(), a()],
            "schema: A: the name \"A\" is declared twice",
        ),
        (
            vec![a().field("b").relation(Relation::belongs_to("b", "A", "b"))],
            "schema: A: the name \"b\" is declared twice",
        ),
        (
            vec![a().relation(Relation::belongs_to("b", "B", "b_id"))],
            "schema: A.b names B, which is not declared (or not stored)",
        ),
        (
            vec![a().relation(Relation::has_many("all", "A", "a_id"))],
            "schema: A.all names A.a_id, which is not declared (or not stored)",
        ),
        (
            vec![
                a().relation(Relation::linked_many("b", "B", "LinkAB")),
                Entity::new("B"),
            ],
            "schema: A.b: LinkAB is not a link entity between the two ends",
        ),
        (
            vec![
                a(),
                Entity::new("B").relation(Relation::linked_many("b", "B", "LinkAB")),
                link(),
            ],
            "schema: B.b: LinkAB is not a link entity between the two ends",
        ),
        (
            vec![a().field(Field::timestamp("at").lookup())],
            "schema: A.lookup: A.at cannot be matched by: its values have no canonical text",
        ),
        (
            vec![a().soft_delete("gone")],
            "schema: A.soft_delete names A.gone, which is not declared (or not stored)",
        ),
        (
            vec![a().depends_on(Dependency::on("A").fields(["x"]))],
            "schema: A.depends_on names A.x, which is not declared (or not stored)",
        ),
    ] {
        assert_eq!(build(entities), message);
    }
}

/// Answers every fetch with the same.
struct Canned(Result<Rows, &'static str>);

impl Resolver for Canned {
    fn fetch<'a>(&'a self, _: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        let answer = self.0.clone().map_err(ResolverError::from);
        Box::pin(async move { answer })
    }
}

#[test]
fn a_resolver_that_fails_or_answers_nonsense_is_the_callers_error() {
    let ask = |answer, query: GraphQuery| {
        let graph = Graph::builder(schema(), Canned(answer)).build();
        ready(graph.query(&query, &GraphOptions::default())).unwrap_err()
    };
    let rows = |rows: Value| {
        let rows = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_object().unwrap().clone());
        Ok(Rows {
            rows: rows.collect(),
            count: None,
        })
    };
    let failed = ask(Err("the database is away"), products().fields(["id"]));
    assert_eq!(failed.to_string(), "graph: fetching Product failed");
    let source = std::error::Error::source(&failed).unwrap();
    assert_eq!(source.to_string(), "the database is away");

    for (answer, query, message) in [
        (
            json!([{ "title": "x" }]),
            products().fields(["title"]),
            "graph: the resolver returned a row of Product without a usable id",
        ),
        (
            json!([{ "id": null }]),
            products().fields(["title"]),
            "graph: the resolver returned a row of Product without a usable id",
        ),
        (
            json!([{ "id": ["x"] }]),
            products().fields(["title"]),
            "graph: the resolver returned a row of Product without a usable id",
        ),
        (
            json!([{ "id": "p1", "collection_id": {} }]),
            products().fields(["collection.name"]),
            "graph: the resolver returned a row of Product without a usable collection_id",
        ),
        (
            json!([{ "id": "p1" }]),
            products().fields(["variants.sku"]),
            "graph: the resolver returned a row of Variant without a usable product_id",
        ),
        (
            json!([]),
            products()
                .fields(["id"])
                .pagination(Pagination::new().take(1)),
            "graph: the resolver returned no count of Product",
        ),
    ] {
        assert_eq!(
            ask(rows(answer), query.clone()).to_string(),
            message,
            "{query:?}"
        );
    }
}

#[test]
fn a_missing_id_is_an_error_if_the_caller_wants_one() {
    let store = store();
    let ask = |id: Value, throw| {
        let query = products().fields(["title"]).filters(json!({ "id": id }));
        let options = GraphOptions::default().throw_if_key_not_found(throw);
        ready(graph(&store).query(&query, &options)).map_err(|error| error.to_string())
    };
    assert!(ask(json!("p9"), false).is_ok());
    assert!(ask(json!(["p1", "p2"]), true).is_ok());
    let missing = ask(json!(["p1", "p9"]), true).unwrap_err();
    assert_eq!(missing, "graph: Product with id p9 was not found");
}

#[test]
fn names_in_any_case_and_ids_tell_their_entity() {
    let schema = schema();
    for name in ["Product", "product", "products"] {
        assert_eq!(schema.entity(name).unwrap().name(), "Product");
    }
    assert_eq!(
        schema.entity("link_product_channel").unwrap().name(),
        "LinkProductChannel"
    );
    assert_eq!(schema.entity_of_id("prod_1").unwrap().name(), "Product");
    assert!(schema.entity_of_id("order_1").is_none());
}
