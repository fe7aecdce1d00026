//! Keys of several fields: what rows are called in tags, which rows are meant, what a change of one clears.

use super::*;
use mcache::change::{Operation, key_text};
use mcache::{Cache, MemoryProvider, Source};

/// Orders of tenants: `number` alone names none. Lines refer to orders, tags are linked to them.
pub(super) fn orders() -> Arc<Schema> {
    let order = Entity::new("Order")
        .key(["tenant", "number"])
        .field(Field::integer("number"))
        .fields(["state", "parent_tenant"])
        .field(Field::integer("parent_number"))
        .field(
            Field::computed("weight").depends_on(
                Dependency::on("Line")
                    .keyed(["tenant", "order_number"], ["tenant", "number"])
                    .fields(["weight"]),
            ),
        )
        .relation(
            Relation::has_many("lines", "Line", ["tenant", "order_number"]).ordered_by("weight"),
        )
        .relation(Relation::belongs_to(
            "parent",
            "Order",
            ["parent_tenant", "parent_number"],
        ))
        .relation(Relation::linked_many("labels", "Label", "LinkOrderLabel"));
    let line = Entity::new("Line")
        .key(["tenant", "order_number", "position"])
        .fields([
            Field::integer("order_number"),
            Field::integer("position"),
            Field::integer("weight"),
        ])
        .field("sku")
        .relation(Relation::belongs_to(
            "order",
            "Order",
            ["tenant", "order_number"],
        ));
    let label = Entity::new("Label")
        .key(["tenant", "name"])
        .field("color")
        .relation(Relation::linked_many("orders", "Order", "LinkOrderLabel"));
    let link = Entity::link(
        "LinkOrderLabel",
        (["tenant", "order_number"], "Order"),
        (["tenant", "label"], "Label"),
    )
    .field(Field::integer("order_number"));
    let builder = Schema::builder();
    let builder = builder
        .entity(order)
        .entity(line)
        .entity(label)
        .entity(link);
    Arc::new(builder.build().unwrap())
}

pub(super) fn filled() -> Arc<MemoryResolver> {
    let store = MemoryResolver::new(orders()).compute("Order", "weight", |tables, row, _| {
        let lines = tables.rows("Line").filter(|line| {
            line["tenant"] == row["tenant"] && line["order_number"] == row["number"]
        });
        json!(
            lines
                .filter_map(|line| line["weight"].as_i64())
                .sum::<i64>()
        )
    });
    for tenant in ["a", "b"] {
        for number in [1, 2] {
            let parent = (number == 2).then_some(1);
            put(
                &store,
                "Order",
                json!({ "tenant": tenant, "number": number, "state": format!("{tenant}{number}"),
                "parent_tenant": tenant, "parent_number": parent }),
            );
            for position in [1, 2] {
                put(
                    &store,
                    "Line",
                    json!({ "tenant": tenant, "order_number": number, "position": position,
                    "weight": 10 - position, "sku": format!("{tenant}{number}{position}") }),
                );
            }
        }
        put(
            &store,
            "Label",
            json!({ "tenant": tenant, "name": "x", "color": format!("red {tenant}") }),
        );
        put(
            &store,
            "LinkOrderLabel",
            json!({ "tenant": tenant, "order_number": 1, "label": "x" }),
        );
    }
    Arc::new(store)
}

fn put(store: &MemoryResolver, entity: &str, row: Value) -> ChangeEvent {
    store.put(entity, row).unwrap()
}

fn graph_of(store: &Arc<MemoryResolver>) -> Graph {
    Graph::builder(orders(), store.clone()).build()
}

fn ask(store: &Arc<MemoryResolver>, query: GraphQuery) -> Vec<Value> {
    ready(graph_of(store).query(&query, &GraphOptions::default()))
        .unwrap()
        .data
}

fn order(tenant: &str, number: i64) -> GraphQuery {
    GraphQuery::new("order").filters(json!({ "tenant": tenant, "number": number }))
}

/// Whether a change clears the result of a query, as it was made before.
fn clears(store: &Arc<MemoryResolver>, query: GraphQuery, event: &ChangeEvent) -> bool {
    let graph = graph_of(store);
    let answer = ready(graph.load(&query, &GraphOptions::default())).unwrap();
    let tags = answer.tags().tags;
    graph
        .change_tags()
        .of(event)
        .unwrap()
        .iter()
        .any(|tag| tags.contains(tag))
}

#[test]
fn rows_are_matched_by_all_fields_of_their_keys() {
    let store = filled();
    let query = order("b", 2).fields([
        "state",
        "weight",
        "lines.sku",
        "parent.state",
        "parent.labels.color",
    ]);
    assert_eq!(
        ask(&store, query),
        [
            json!({ "state": "b2", "weight": 17, "lines": [{ "sku": "b22" }, { "sku": "b21" }],
                 "parent": { "state": "b1", "labels": [{ "color": "red b" }] } })
        ]
    );
    // A null in what refers refers to nothing.
    assert_eq!(
        ask(&store, order("a", 1).fields(["parent.state"])),
        [json!({ "parent": null })]
    );
    let labelled = GraphQuery::new("label").fields(["tenant", "orders.number"]);
    assert_eq!(
        ask(&store, labelled),
        [
            json!({ "tenant": "a", "orders": [{ "number": 1 }] }),
            json!({ "tenant": "b", "orders": [{ "number": 1 }] })
        ]
    );
    let by_relation = GraphQuery::new("line")
        .fields(["sku"])
        .filters(json!({ "order": { "state": "a2" } }));
    assert_eq!(
        ask(&store, by_relation),
        [json!({ "sku": "a21" }), json!({ "sku": "a22" })]
    );
    let by_link = GraphQuery::new("order")
        .fields(["state"])
        .filters(json!({ "labels": { "color": "red b" } }));
    assert_eq!(ask(&store, by_link), [json!({ "state": "b1" })]);
    let all = GraphQuery::new("label")
        .fields(["*"])
        .filters(json!({ "tenant": "a" }));
    assert_eq!(
        ask(&store, all),
        [json!({ "tenant": "a", "name": "x", "color": "red a" })]
    );
}

#[test]
fn the_tags_of_a_row_have_all_of_its_key() {
    let store = filled();
    let graph = graph_of(&store);
    let query = order("a", 2).fields(["state", "lines.sku"]);
    let tags = ready(graph.load(&query, &GraphOptions::default()))
        .unwrap()
        .tags()
        .tags;
    let tags: BTreeSet<&str> = tags.iter().collect();
    for tag in [
        "Order:a|2#state",
        "Order:a|2#+",
        "Line:tenant,order_number=a|2#sku",
        "Line:tenant,order_number=a|2#+",
    ] {
        assert!(tags.contains(tag), "{tag} in {tags:?}");
    }
    assert!(!tags.iter().any(|tag| tag.contains("list:")), "{tags:?}");
    let compatible = Graph::builder(orders(), store)
        .precision(Precision::Compatible)
        .build();
    let tags = ready(compatible.load(&query, &GraphOptions::default()))
        .unwrap()
        .tags()
        .tags;
    assert!(
        tags.contains("Order:a|2") && tags.contains("Line:a|2|1"),
        "{tags:?}"
    );
}

#[test]
fn a_change_clears_what_has_its_key_and_not_what_shares_a_part() {
    let store = filled();
    let state = |tenant: &str, number| order(tenant, number).fields(["state"]);
    let weights = |tenant: &str, number| order(tenant, number).fields(["weight"]);
    let lines = |tenant: &str, number| order(tenant, number).fields(["lines.sku"]);
    let labels = |tenant: &str, number| order(tenant, number).fields(["labels.color"]);
    let paid = store
        .update("Order", "a|1", json!({ "state": "paid", "tenant": "b" }))
        .unwrap()
        .unwrap();
    assert_eq!(
        store.get("Order", "a|1").unwrap()["tenant"],
        "a",
        "a row with another key is another row"
    );
    assert!(clears(&store, state("a", 1), &paid));
    assert!(!clears(&store, state("a", 2), &paid) && !clears(&store, state("b", 1), &paid));
    assert!(
        !clears(&store, weights("a", 1), &paid),
        "neither shown nor asked for"
    );

    let heavier = store
        .update("Line", "a|1|1", json!({ "weight": 90 }))
        .unwrap()
        .unwrap();
    assert!(
        clears(&store, weights("a", 1), &heavier) && !clears(&store, weights("a", 2), &heavier)
    );
    let line =
        json!({ "tenant": "b", "order_number": 1, "position": 3, "weight": 1, "sku": "new" });
    let added = put(&store, "Line", line);
    assert!(clears(&store, lines("b", 1), &added));
    assert!(!clears(&store, lines("b", 2), &added) && !clears(&store, lines("a", 1), &added));

    let attached = put(
        &store,
        "LinkOrderLabel",
        json!({ "tenant": "a", "order_number": 2, "label": "x" }),
    );
    assert!(clears(&store, labels("a", 2), &attached));
    assert!(
        !clears(&store, labels("a", 1), &attached) && !clears(&store, labels("b", 2), &attached)
    );
    let red = store
        .update("Label", "a|x", json!({ "color": "blue" }))
        .unwrap()
        .unwrap();
    assert!(clears(&store, labels("a", 1), &red) && !clears(&store, labels("b", 1), &red));

    // Lists: of several keys, of a part of the key, of all.
    let two = json!({ "$or": [{ "tenant": "a", "number": 2 }, { "tenant": "b", "number": 1 }] });
    let two = || {
        GraphQuery::new("order")
            .fields(["state"])
            .filters(two.clone())
    };
    let many = || {
        GraphQuery::new("order")
            .fields(["state"])
            .filters(json!({ "tenant": "a", "number": [1, 2] }))
    };
    let of = |tenant: &str| {
        GraphQuery::new("order")
            .fields(["state"])
            .filters(json!({ "tenant": tenant }))
    };
    let changed =
        |key: &str| ChangeEvent::new("Order", Operation::Updated, [key]).with_changed(["state"]);
    for (key, in_two, in_many) in [
        ("a|1", false, true),
        ("a|2", true, true),
        ("b|1", true, false),
        ("b|2", false, false),
    ] {
        assert_eq!(clears(&store, two(), &changed(key)), in_two, "{key}");
        assert_eq!(clears(&store, many(), &changed(key)), in_many, "{key}");
    }
    let created = put(
        &store,
        "Order",
        json!({ "tenant": "a", "number": 3, "state": "new" }),
    );
    assert!(
        clears(&store, of("a"), &created),
        "a list by a part of the key"
    );
    assert!(!clears(&store, two(), &created) && !clears(&store, many(), &created));
}

#[test]
fn events_name_rows_by_the_text_of_their_key_however_its_parts_are_spelled() {
    let store = filled();
    let query = order("a", 2).fields(["state"]);
    let event =
        |id: &str| ChangeEvent::new("Order", Operation::Updated, [id]).with_changed(["state"]);
    assert!(clears(
        &store,
        query.clone(),
        &event(&key_text(&["a", "2"]))
    ));
    assert!(
        clears(&store, query.clone(), &event("a|2.0")),
        "the same number"
    );
    assert!(!clears(&store, query.clone(), &event("a|3")));
    // It is not known which row that is: any.
    assert!(
        clears(&store, query.clone(), &event("2")) && clears(&store, query.clone(), &event("a|2|"))
    );
    let bus = ChangeEvent::parse("order.updated", &json!({ "key": ["a", 2] })).unwrap();
    assert!(clears(&store, query.clone(), &bus));
    let other = ChangeEvent::parse("order.updated", &json!({ "key": ["b", 2] })).unwrap();
    assert!(!clears(&store, query, &other));
    // What a lookup's value is, the key says where the row does not.
    let lines = order("a", 2).fields(["lines.sku"]);
    let line = |id: &str| ChangeEvent::new("Line", Operation::Updated, [id]).with_changed(["sku"]);
    assert!(
        clears(&store, lines.clone(), &line("a|2|1")) && !clears(&store, lines, &line("a|1|1"))
    );
}

#[test]
fn a_row_given_another_key_went_and_came() {
    let store = filled();
    let row = |number: i64| {
        json!({ "tenant": "a", "number": number, "state": "s" })
            .as_object()
            .unwrap()
            .clone()
    };
    let moved = ChangeEvent::new("Order", Operation::Updated, ["a|1"]).with_changed(["number"]);
    let told = moved
        .clone()
        .with_before("a|1", row(1))
        .with_after("a|1", row(9));
    let absent = order("a", 9).fields(["number"]);
    let there = order("a", 1).fields(["number"]);
    for query in [there, absent, GraphQuery::new("order").fields(["number"])] {
        assert!(clears(&store, query.clone(), &told), "{query:?}");
        assert!(
            clears(&store, query.clone(), &moved),
            "where to is not told: {query:?}"
        );
    }
    assert!(!clears(&store, order("a", 2).fields(["number"]), &told));
    // The same of a key of one field.
    let row = |id: &str| json!({ "id": id }).as_object().unwrap().clone();
    let told = ChangeEvent::new("Product", Operation::Updated, ["p1"]);
    let told = told
        .with_before("p1", row("p1"))
        .with_after("p1", row("p9"));
    let graph = super::graph(&super::store());
    let query = products().fields(["id"]).filters(json!({ "id": "p9" }));
    let tags = ready(graph.load(&query, &GraphOptions::default()))
        .unwrap()
        .tags();
    assert!(!common(&tags, &told).is_empty());
}

#[tokio::test]
async fn one_query_for_each_of_several_keys() {
    let store = filled();
    let cache = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .build()
        .await
        .unwrap();
    let graph = Graph::builder(orders(), store.clone())
        .cache(cache.clone())
        .build();
    let query = GraphQuery::new("order").fields(["state"]);
    let options = GraphOptions::cached();
    let each = |keys: Vec<Value>| graph.serve_each(&query, ["tenant", "number"], keys, &options);
    let served = each(vec![
        json!(["b", 1]),
        json!(["a", 2]),
        json!(["c", 1]),
        json!(["b", 1]),
    ])
    .await
    .unwrap();
    let states: Vec<Value> = served
        .iter()
        .map(|served| json!(served.value.data))
        .collect();
    let b1 = json!([{ "state": "b1" }]);
    assert_eq!(
        states,
        [b1.clone(), json!([{ "state": "a2" }]), json!([]), b1]
    );
    assert_eq!(graph.stats().loads, 1);
    let alone = graph
        .serve(&order("a", 2).fields(["state"]), &options)
        .await
        .unwrap();
    assert_eq!(
        alone.source,
        Source::Hit,
        "the same entry as asked for alone"
    );
    let event = ChangeEvent::new("Order", Operation::Updated, ["a|2"]);
    cache
        .invalidate_auto(graph.change_tags().of(&event).unwrap().iter())
        .await
        .unwrap();
    let sources: Vec<Source> = each(vec![json!(["b", 1]), json!(["a", 2])])
        .await
        .unwrap()
        .iter()
        .map(|s| s.source)
        .collect();
    assert_eq!(sources, [Source::Hit, Source::Loaded]);
    // By what rows are matched by, in any order of the fields.
    let lines = GraphQuery::new("line").fields(["sku"]);
    let lines = graph
        .query_each(
            &lines,
            ["order_number", "tenant"],
            [json!([1, "a"])],
            &options,
        )
        .await
        .unwrap();
    assert_eq!(
        lines[0].data,
        [json!({ "sku": "a11" }), json!({ "sku": "a12" })]
    );

    let refused = |fields: &[&str], value: Value| {
        let error = ready(graph.query_each(&query, fields, [value], &GraphOptions::default()));
        error.unwrap_err().to_string()
    };
    for (fields, value, message) in [
        (
            &["tenant"][..],
            json!("a"),
            "query: Order for each \"tenant\": it is neither the key nor a lookup",
        ),
        (
            &["tenant", "state"],
            json!(["a", "b"]),
            "query: Order for each \"tenant, state\": they are together neither the key nor what rows are matched by",
        ),
        (
            &["tenant", "nr"],
            json!(["a", 1]),
            "query: Order has no field \"nr\"",
        ),
        (
            &["tenant", "number"],
            json!(["a"]),
            "query: Order for each \"tenant, number\": expected arrays of one single value for each field",
        ),
        (
            &["tenant", "number"],
            json!(["a", "b"]),
            "query: filter on Order, at \"number\": the value does not fit the field's type or the operator",
        ),
    ] {
        assert_eq!(refused(fields, value), message);
    }
    let strict = options.throw_if_key_not_found(true);
    let error = graph
        .query_each(&query, ["tenant", "number"], [json!(["c", 1])], &strict)
        .await
        .unwrap_err();
    assert_eq!(
        error.clone().to_string(),
        "graph: Order with id c|1 was not found"
    );
}

#[test]
fn coarse_tags_of_rows_matched_by_several_fields_name_each_of_them() {
    let store = filled();
    let limits = TagLimits::default().fields_max(0).rows_max(0);
    let graph = Graph::builder(orders(), store).limits(limits).build();
    let parents = GraphQuery::new("order").fields(["parent.state"]);
    let tags = ready(graph.load(&parents, &GraphOptions::default()))
        .unwrap()
        .tags()
        .tags;
    let moved = ChangeEvent::new("Order", Operation::Updated, ["a|2"]);
    for field in ["parent_tenant", "parent_number"] {
        let moved = moved.clone().with_changed([field]);
        let cleared = graph.change_tags().of(&moved).unwrap();
        assert!(
            cleared.iter().any(|tag| tags.contains(tag)),
            "{field} {tags:?}"
        );
    }
}

#[test]
fn public_types_can_be_printed() {
    let store = filled();
    assert_eq!(format!("{store:?}"), format!("{store:?}"));
    let printed = format!("{:?}", graph_of(&store));
    assert!(printed.starts_with("Graph { entities: 4"), "{printed}");
}
