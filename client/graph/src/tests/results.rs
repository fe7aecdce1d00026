//! What results look like.

use super::*;

#[test]
fn paths_reach_related_rows_and_nothing_else_is_shown() {
    let query = products()
        .fields(["title", "variants.sku", "collection.name", "channels.name"])
        .filters(json!({ "id": ["p1", "p3"] }));
    assert_eq!(
        data(query),
        json!([
            {
                "title": "Shirt",
                "variants": [{ "sku": "M" }, { "sku": "S" }],
                "collection": { "name": "Summer" },
                "channels": [{ "name": "App" }, { "name": "Web" }],
            },
            { "title": "Sock", "variants": [], "collection": null, "channels": [] },
        ])
    );
}

#[test]
fn a_star_is_every_stored_field_and_a_row_may_be_shown_in_several_places() {
    let query = GraphQuery::new("Variant").fields(["*", "product.title", "product.channels.id"]);
    let expected = |id: &str, sku: &str, product: &str, rank: i64, title: &str, channels: Value| {
        json!({
            "id": id, "sku": sku, "product_id": product, "rank": rank,
            "product": { "title": title, "channels": channels },
        })
    };
    let both = json!([{ "id": "app" }, { "id": "web" }]);
    assert_eq!(
        data(query),
        json!([
            expected("v1", "S", "p1", 2, "Shirt", both.clone()),
            expected("v2", "M", "p1", 1, "Shirt", both),
            expected("v3", "H", "p2", 1, "Hat", json!([{ "id": "web" }])),
        ])
    );
}

#[test]
fn computed_fields_are_made_when_asked_for() {
    let query = GraphQuery::new("variant").fields(["id", "stock"]);
    assert_eq!(data(query)[0], json!({ "id": "v1", "stock": 5 }));
}

#[test]
fn filters_hold_as_in_sql() {
    let ids = |filters: Value| {
        let found = data(products().fields(["id"]).filters(filters));
        let ids = found
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    };
    for (filters, expected) in [
        (json!({}), "p1 p2 p3"),
        (json!({ "status": "published" }), "p1 p2"),
        (json!({ "status": ["draft", "x"] }), "p3"),
        (json!({ "status": [] }), ""),
        (json!({ "rank": { "$gt": 1, "$lte": 3 } }), "p2 p3"),
        (json!({ "rank": { "$in": [1, 3] } }), "p1 p3"),
        (json!({ "rank": { "$nin": [1, 3] } }), "p2"),
        (json!({ "title": { "$like": "S%" } }), "p1 p3"),
        (json!({ "title": { "$ilike": "%T" } }), "p1 p2"),
        (json!({ "collection_id": null }), "p3"),
        (json!({ "collection_id": { "$ne": null } }), "p1 p2"),
        (json!({ "collection_id": { "$ne": "x" } }), "p1 p2"),
        (json!({ "$not": { "collection_id": "c1" } }), ""),
        (
            json!({ "$or": [{ "title": "Hat" }, { "rank": 3 }] }),
            "p2 p3",
        ),
        (json!({ "$or": [] }), ""),
        (
            json!({ "$and": [{ "status": "published" }, { "rank": { "$not": { "$eq": 1 } } }] }),
            "p2",
        ),
        (json!({ "variants": { "sku": "H" } }), "p2"),
        (json!({ "$not": { "variants": {} } }), "p3"),
        (json!({ "collection": { "name": "Summer" } }), "p1 p2"),
        (json!({ "channels": { "id": "app" } }), "p1"),
    ] {
        assert_eq!(ids(filters.clone()), expected, "{filters}");
    }
}

#[test]
fn a_page_is_sorted_and_tells_where_it_is() {
    let page = Pagination::new()
        .order("status", Direction::Asc)
        .order("rank", Direction::Desc);
    let query = products().fields(["id"]).pagination(page.skip(1).take(1));
    let result = run(&store(), query).unwrap();
    assert_eq!(result.data, [json!({ "id": "p2" })]);
    let metadata = Metadata {
        count: 3,
        skip: 1,
        take: Some(1),
    };
    assert_eq!(result.metadata, Some(metadata));
    assert_eq!(
        run(&store(), products().fields(["id"])).unwrap().metadata,
        None
    );
}

#[test]
fn soft_deleted_rows_are_not_there() {
    let store = store();
    let deleted = json!({ "deleted_at": "2026-01-01T00:00:00Z" });
    store.update("Product", "p1", deleted).unwrap();
    let query = GraphQuery::new("collection").fields(["products.id"]);
    let result = run(&store, query).unwrap();
    assert_eq!(result.data, [json!({ "products": [{ "id": "p2" }] })]);
    let found = run(&store, GraphQuery::new("channel").fields(["products.id"])).unwrap();
    assert_eq!(found.data[0], json!({ "products": [] }));
}

#[test]
fn a_result_survives_json() {
    let query = products()
        .fields(["*", "variants.*"])
        .pagination(Pagination::new().take(2));
    let result = run(&store(), query).unwrap();
    let json = serde_json::to_string(&result).unwrap();
    assert_eq!(serde_json::from_str::<GraphResult>(&json).unwrap(), result);
}
