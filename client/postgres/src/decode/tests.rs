//! What a row of the outbox means to a consumer.

use std::sync::Arc;

use super::*;
use mcache_graph::{Field, Schema};

const PRODUCT: &str = r#""public"."product""#;

fn decoder() -> Decoder {
    let product = Entity::new("Product")
        .fields(["title", "description"])
        .field(Field::integer("rank"))
        .field(Field::json("metadata"))
        .field(Field::timestamp("deleted_at"))
        .soft_delete("deleted_at");
    let link = Entity::link("Link", ("a_id", "Product"), ("b_id", "Product"));
    let schema = Schema::builder()
        .entity(product)
        .entity(link)
        .build()
        .unwrap();
    Decoder::new(&Mapping::builder(Arc::new(schema)).build().unwrap())
}

fn row(id: &str, rank: &str) -> Value {
    json!({ "id": id, "title": "a", "rank": rank, "metadata@j": null, "description": null, "deleted_at@t": null })
}

fn events(operation: &str, images: Value) -> Vec<ChangeEvent> {
    decoder().events(PRODUCT, operation, Some(&images.to_string()), None)
}

#[test]
fn values_are_those_of_query_results_and_digests_are_unknown() {
    let (mut old, mut new) = (row("p1", "1"), row("p1", "2"));
    old["metadata@j"] = json!({ "sha256": "x" });
    new["metadata@j"] = json!({ "sha256": "y" });
    let events = events("update", json!({ "old": [old], "new": [new] }));
    let [event] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (event.operation, &event.ids[..]),
        (Operation::Updated, &["p1".to_owned()][..])
    );
    let after = &event.after.as_ref().unwrap()["p1"];
    assert_eq!(after["rank"], json!(2));
    assert_eq!(after["description"], Value::Null);
    assert!(!after.contains_key("metadata"));
    let changed: Vec<_> = event.changed.iter().flatten().collect();
    assert_eq!(changed, ["metadata", "rank"]);
}

#[test]
fn the_only_row_of_a_statement_means_what_one_of_several_does() {
    let columns = [
        "id",
        "title",
        "rank",
        "metadata@j",
        "description",
        "deleted_at@t",
    ];
    let was = [Some("p1"), Some("a"), Some("1"), Some("x"), None, None];
    let is_now = [Some("p1"), Some("a"), Some("2"), Some("y"), None, None];
    let told = |operation,
                was: Option<&[Option<&'static str>]>,
                is_now: Option<&[Option<&'static str>]>| {
        let one = One {
            columns: columns.to_vec(),
            was: was.map(<[_]>::to_vec),
            is_now: is_now.map(<[_]>::to_vec),
        };
        decoder().events(PRODUCT, operation, None, Some(one))
    };
    let (mut old, mut new) = (row("p1", "1"), row("p1", "2"));
    old["metadata@j"] = json!({ "sha256": "x" });
    new["metadata@j"] = json!({ "sha256": "y" });
    for (operation, old, new) in [
        ("insert", None, Some(new.clone())),
        ("delete", Some(old.clone()), None),
        ("update", Some(old), Some(new)),
    ] {
        let list = |row: &Option<Value>| row.iter().cloned().collect::<Vec<_>>();
        let among_others = events(operation, json!({ "old": list(&old), "new": list(&new) }));
        let alone = told(
            operation,
            old.as_ref().map(|_| &was[..]),
            new.as_ref().map(|_| &is_now[..]),
        );
        assert_eq!(alone, among_others, "{operation}");
        assert_eq!(alone.len(), 1, "{operation}");
    }
    // What cannot be read concerns the whole entity.
    let everything = [ChangeEvent::everything("Product")];
    assert_eq!(told("update", Some(&was[1..]), Some(&is_now)), everything);
    assert_eq!(told("everything", Some(&was), Some(&is_now)), everything);
}

#[test]
fn what_was_not_captured_is_unknown_and_counts_as_changed() {
    let mut new = row("p1", "2");
    new.as_object_mut().unwrap().remove("title");
    let known = events("update", json!({ "old": [row("p1", "2")], "new": [new] }));
    let changed: Vec<_> = known[0].changed.iter().flatten().collect();
    assert_eq!(changed, ["title"]);
    assert!(!known[0].after.as_ref().unwrap()["p1"].contains_key("title"));

    let ids_only = events(
        "update",
        json!({ "old": [{ "id": "p1" }], "new": [{ "id": "p1" }] }),
    );
    assert_eq!(ids_only[0].ids, ["p1"]);
    let after = &ids_only[0].after.as_ref().unwrap()["p1"];
    assert_eq!(after.len(), 1, "its id is known");
    let changed: Vec<_> = ids_only[0].changed.iter().flatten().collect();
    let all_but_the_id = ["deleted_at", "description", "metadata", "rank", "title"];
    assert_eq!(changed, all_but_the_id);
}

#[test]
fn a_change_of_what_another_consumer_needs_is_none() {
    let (mut old, mut new) = (row("p1", "1"), row("p1", "1"));
    old["stock"] = json!("1");
    new["stock"] = json!("2");
    assert_eq!(events("update", json!({ "old": [old], "new": [new] })), []);
}

#[test]
fn soft_deletion_is_the_consumers_own_word() {
    let mut gone = row("p1", "1");
    gone["deleted_at@t"] = json!("2026-01-31T12:00:00.000000Z");
    let what = |operation, old: &[&Value], new: &[&Value]| {
        let events = events(operation, json!({ "old": old, "new": new }));
        events
            .iter()
            .map(|event| event.operation)
            .collect::<Vec<_>>()
    };
    let there = row("p1", "1");
    assert_eq!(what("update", &[&there], &[&gone]), [Operation::Deleted]);
    assert_eq!(what("update", &[&gone], &[&there]), [Operation::Restored]);
    assert_eq!(what("update", &[&gone], &[&gone]), []);
    assert_eq!(what("insert", &[], &[&gone]), []);
    assert_eq!(what("delete", &[&gone], &[]), []);
    assert_eq!(what("insert", &[], &[&there]), [Operation::Created]);
    let moved = row("p2", "1");
    assert_eq!(
        what("update", &[&there], &[&moved]),
        [Operation::Deleted, Operation::Restored]
    );
}

#[test]
fn rows_that_share_a_key_are_not_told_apart() {
    let images =
        json!({ "old": [row("p1", "1"), row("p1", "2")], "new": [row("p1", "3"), row("p1", "4")] });
    let events = events("update", images);
    assert_eq!(events[0].ids, ["p1"]);
    assert_eq!(
        (&events[0].before, &events[0].after, &events[0].changed),
        (&None, &None, &None)
    );
}

#[test]
fn rows_that_share_a_key_and_come_or_go_concern_the_whole_entity() {
    for (operation, old, new) in [
        ("insert", vec![], vec!["1", "2"]),
        ("delete", vec!["1", "2"], vec![]),
        ("update", vec!["1", "2"], vec!["3"]),
    ] {
        let rows = |ranks: Vec<&str>| -> Vec<Value> {
            ranks.into_iter().map(|rank| row("p1", rank)).collect()
        };
        let events = events(operation, json!({ "old": rows(old), "new": rows(new) }));
        assert_eq!(events, [ChangeEvent::everything("Product")], "{operation}");
    }
}

#[test]
fn a_key_of_several_columns_is_one_text_and_another_key_is_another_row() {
    let order = Entity::new("Order")
        .key(["tenant", "id"])
        .field(Field::integer("id"))
        .field("state");
    let schema = Schema::builder().entity(order).build().unwrap();
    let mapping = Mapping::builder(Arc::new(schema)).table(
        "Order",
        crate::Table::named("orders").column("tenant", "the tenant"),
    );
    let decoder = Decoder::new(&mapping.build().unwrap());
    let row = |tenant: &str, id: &str| json!({ "the tenant": tenant, "id": id, "state": "paid" });
    let happened = |old: Value, new: Value| {
        let rows = json!({ "old": old, "new": new }).to_string();
        let events = decoder.events(r#""public"."orders""#, "update", Some(&rows), None);
        let told = events.into_iter().map(|event| (event.operation, event.ids));
        told.collect::<Vec<_>>()
    };
    let mut unpaid = row("a|b", "7");
    unpaid["state"] = json!("new");
    assert_eq!(
        happened(json!([unpaid]), json!([row("a|b", "7")])),
        [(Operation::Updated, vec![r"a\|b|7".to_owned()])]
    );
    assert_eq!(
        happened(json!([row("a", "7")]), json!([row("b", "7")])),
        [
            (Operation::Deleted, vec!["a|7".to_owned()]),
            (Operation::Created, vec!["b|7".to_owned()])
        ]
    );
    // Null in the key names no row.
    let nameless = json!({ "the tenant": null, "id": "7", "state": "paid" });
    assert_eq!(
        happened(json!([nameless]), json!([])),
        [(Operation::Updated, vec![])]
    );
}

#[test]
fn keys_of_several_columns_do_not_run_into_each_other() {
    let link = |a, b| json!({ "a_id": a, "b_id": b });
    let images = json!({ "new": [link("a|b", "c"), link("a", "b|c"), link("a\\", "|c")] });
    let events = decoder().events(
        r#""public"."link""#,
        "insert",
        Some(&images.to_string()),
        None,
    );
    let ids: BTreeSet<_> = events[0].ids.iter().collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(events[0].operation, Operation::Attached);
}

#[test]
fn what_cannot_be_read_concerns_the_whole_entity() {
    for (operation, rows) in [
        ("update", None),
        ("update", Some("nonsense")),
        ("everything", Some("{}")),
        ("update", Some(r#"{"new":[{"title":"no key"}]}"#)),
        ("update", Some(r#"{"new":[{"id":null}]}"#)),
        ("a word of a later version", Some(r#"{"new":[]}"#)),
    ] {
        let events = decoder().events(PRODUCT, operation, rows, None);
        assert_eq!(events, [ChangeEvent::everything("Product")], "{rows:?}");
    }
    assert_eq!(decoder().events("another", "update", None, None), []);
    assert_eq!(tags(Some(r#"["a", "b"]"#)), ["a", "b"]);
    assert!(tags(None).is_empty());
}
