//! Keys as they are declared, and what is said when a declaration or a row is wrong.

use super::keys::{filled, orders};
use super::*;

#[test]
fn a_schema_says_what_is_wrong_with_a_key() {
    let build = |entities: Vec<Entity>| {
        let builder = entities
            .into_iter()
            .fold(Schema::builder(), SchemaBuilder::entity);
        builder.build().map(|_| ()).unwrap_err().to_string()
    };
    let order = || Entity::new("Order").key(["tenant", "number"]);
    for (entities, message) in [
        (
            vec![Entity::new("A").key(Vec::<&str>::new())],
            "schema: A: a key has at least one field",
        ),
        (
            vec![Entity::new("A").key(["a", "a"])],
            "schema: A: the name \"a\" is declared twice",
        ),
        (
            vec![Entity::new("A").key(["a", "b"]).field(Field::json("b"))],
            "schema: A.key: A.b cannot be matched by: its values have no canonical text",
        ),
        (
            vec![
                order().relation(Relation::has_many("lines", "Line", "order_number")),
                Entity::new("Line").field("order_number"),
            ],
            "schema: Order.lines matches (tenant, number) with (order_number), which are not as many",
        ),
        (
            vec![
                order(),
                Entity::new("Line")
                    .field("number")
                    .relation(Relation::belongs_to("order", "Order", "number")),
            ],
            "schema: Line.order matches (number) with (tenant, number), which are not as many",
        ),
        (
            vec![
                order(),
                Entity::new("Label"),
                Entity::link("L", ("number", "Order"), ("label", "Label")),
                Entity::new("X"),
            ],
            "schema: Order.labels matches (tenant, number) with (number), which are not as many",
        ),
        (
            vec![
                order().relation(Relation::has_many("lines", "Line", ["tenant", "order"])),
                Entity::new("Line").field("tenant"),
            ],
            "schema: Order.lines names Line.order, which is not declared (or not stored)",
        ),
    ] {
        let linked = |mut entities: Vec<Entity>| {
            if entities.iter().any(Entity::is_link) {
                entities[0] = entities[0]
                    .clone()
                    .relation(Relation::linked_many("labels", "Label", "L"));
            }
            entities
        };
        assert_eq!(build(linked(entities)), message);
    }
}

#[test]
fn an_entity_without_id_has_none_and_a_key_of_one_field_needs_no_tuple() {
    let schema = Schema::builder()
        .entity(
            Entity::new("Country")
                .fields(["name"])
                .key("code")
                .field("continent"),
        )
        .entity(
            Entity::new("City")
                .field("country_code")
                .relation(Relation::belongs_to("country", "Country", "country_code")),
        )
        .build()
        .unwrap();
    let schema = Arc::new(schema);
    let country = schema.entity("Country").unwrap();
    let names: Vec<&str> = country.all_fields().iter().map(Field::name).collect();
    assert_eq!(names, ["code", "name", "continent"]);
    assert!(country.get_field("id").is_none() && country.is_matched_by("code"));
    let store = Arc::new(MemoryResolver::new(schema.clone()));
    store
        .put("Country", json!({ "code": "de", "name": "Germany" }))
        .unwrap();
    store
        .put("City", json!({ "id": "1", "country_code": "de" }))
        .unwrap();
    let error = store.put("Country", json!({ "id": "de" })).unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory resolver: a row of Country must be an object with code"
    );
    let graph = Graph::builder(schema, store).build();
    let query = GraphQuery::new("city").fields(["country.name"]);
    let answer = ready(graph.load(&query, &GraphOptions::default())).unwrap();
    assert!(answer.tags().tags.contains("Country:de#name"));
    assert_eq!(
        answer.into_result().data,
        [json!({ "country": { "name": "Germany" } })]
    );
    let by_id = GraphQuery::new("country")
        .fields(["name"])
        .filters(json!({ "id": "de" }));
    let error = ready(graph.query(&by_id, &GraphOptions::default())).unwrap_err();
    assert_eq!(error.to_string(), "query: Country has no field \"id\"");
}

/// A resolver that forgets a part of keys.
struct Forgetful(Arc<MemoryResolver>, &'static str);

impl Resolver for Forgetful {
    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        Box::pin(async move {
            let mut rows = self.0.fetch(fetch).await?;
            rows.rows
                .iter_mut()
                .for_each(|row| drop(row.remove(self.1)));
            Ok(rows)
        })
    }
}

#[test]
fn a_row_without_a_part_of_its_key_is_an_error_that_names_the_part() {
    for (part, message) in [
        (
            "number",
            "graph: the resolver returned a row of Order without a usable number",
        ),
        (
            "order_number",
            "graph: the resolver returned a row of Line without a usable order_number",
        ),
    ] {
        let graph = Graph::builder(orders(), Forgetful(filled(), part)).build();
        let query = GraphQuery::new("order").fields(["state", "lines.sku"]);
        let error = ready(graph.query(&query, &GraphOptions::default())).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
