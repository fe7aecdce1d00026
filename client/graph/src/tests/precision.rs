//! What a change clears and what it spares, statement by statement. That nothing is ever spared
//! wrongly is the oracle's business (`tests/suite/graph_oracle`).

use super::*;

/// Whether a change clears the result of a query, at both levels of precision.
struct Verdict {
    precise: bool,
    compatible: bool,
}

const CLEARED: (bool, bool) = (true, true);
const SPARED: (bool, bool) = (false, true);
const UNRELATED: (bool, bool) = (false, false);

fn verdict(query: &GraphQuery, change: impl Fn(&MemoryResolver) -> ChangeEvent) -> Verdict {
    let cleared = |precision| {
        let store = store();
        let graph = Graph::builder(schema(), store.clone())
            .precision(precision)
            .build();
        let tags = ready(graph.load(query, &GraphOptions::default()))
            .unwrap()
            .tags();
        !common(&tags, &change(&store)).is_empty()
    };
    Verdict {
        precise: cleared(Precision::Precise),
        compatible: cleared(Precision::Compatible),
    }
}

#[track_caller]
fn check(
    expected: (bool, bool),
    query: GraphQuery,
    change: impl Fn(&MemoryResolver) -> ChangeEvent,
) {
    let verdict = verdict(&query, change);
    assert_eq!((verdict.precise, verdict.compatible), expected, "{query:?}");
}

fn update(entity: &str, id: &str, fields: Value) -> impl Fn(&MemoryResolver) -> ChangeEvent {
    move |store| store.update(entity, id, fields.clone()).unwrap().unwrap()
}

fn put(entity: &str, row: Value) -> impl Fn(&MemoryResolver) -> ChangeEvent {
    move |store| store.put(entity, row.clone()).unwrap()
}

fn remove(entity: &str, id: &str) -> impl Fn(&MemoryResolver) -> ChangeEvent {
    move |store| store.remove(entity, id).unwrap().unwrap()
}

fn by_id(id: &str) -> GraphQuery {
    products()
        .fields(["id", "title"])
        .filters(json!({ "id": id }))
}

fn published() -> GraphQuery {
    products()
        .fields(["id", "title"])
        .filters(json!({ "status": "published" }))
}

#[test]
fn a_query_by_id_depends_on_that_row_alone_even_if_it_is_missing() {
    check(
        CLEARED,
        by_id("p1"),
        update("Product", "p1", json!({ "title": "x" })),
    );
    check(CLEARED, by_id("p1"), remove("Product", "p1"));
    check(CLEARED, by_id("p9"), put("Product", json!({ "id": "p9" })));
    check(SPARED, by_id("p1"), put("Product", json!({ "id": "p9" })));
    check(
        SPARED,
        by_id("p1"),
        update("Product", "p2", json!({ "title": "x" })),
    );
    check(
        SPARED,
        by_id("p1"),
        update("Product", "p1", json!({ "subtitle": "x" })),
    );
}

#[test]
fn a_list_depends_on_what_it_shows_of_its_rows_and_on_what_it_filters_and_sorts_by() {
    let page = || published().pagination(Pagination::new().take(1).order("rank", Direction::Asc));
    // Shown and contained; shown elsewhere; not shown.
    check(
        CLEARED,
        page(),
        update("Product", "p1", json!({ "title": "x" })),
    );
    check(
        SPARED,
        page(),
        update("Product", "p2", json!({ "title": "x" })),
    );
    check(
        SPARED,
        page(),
        update("Product", "p1", json!({ "subtitle": "x" })),
    );
    // Sorted by: another page's row may move here; but not one that does not match.
    check(
        CLEARED,
        page(),
        update("Product", "p2", json!({ "rank": 0 })),
    );
    check(
        SPARED,
        page(),
        update("Product", "p3", json!({ "rank": 0 })),
    );
    // Filtered by: entering, leaving, neither.
    check(
        CLEARED,
        page(),
        update("Product", "p3", json!({ "status": "published" })),
    );
    check(
        CLEARED,
        page(),
        update("Product", "p2", json!({ "status": "draft" })),
    );
    check(
        SPARED,
        page(),
        update("Product", "p3", json!({ "status": "archived" })),
    );
    check(
        CLEARED,
        page(),
        put("Product", json!({ "id": "p9", "status": "published" })),
    );
    check(
        SPARED,
        page(),
        put("Product", json!({ "id": "p9", "status": "draft" })),
    );
    // If the whole list is shown, its order matters in the rows shown.
    let whole = || published().pagination(Pagination::new().order("rank", Direction::Asc));
    check(
        CLEARED,
        whole(),
        update("Product", "p1", json!({ "rank": 9 })),
    );
    check(
        SPARED,
        whole(),
        update("Product", "p3", json!({ "rank": 9 })),
    );
}

#[test]
fn an_empty_list_waits_for_what_would_fill_it() {
    let archived = || {
        products()
            .fields(["id"])
            .filters(json!({ "status": "archived" }))
    };
    check(
        CLEARED,
        archived(),
        put("Product", json!({ "id": "p9", "status": "archived" })),
    );
    check(
        CLEARED,
        archived(),
        update("Product", "p1", json!({ "status": "archived" })),
    );
    check(
        SPARED,
        archived(),
        update("Product", "p1", json!({ "status": "draft" })),
    );
    // A filter that tags cannot express depends on its field in any row.
    let cheap = || {
        products()
            .fields(["id"])
            .filters(json!({ "rank": { "$lt": 0 } }))
    };
    check(
        CLEARED,
        cheap(),
        update("Product", "p1", json!({ "rank": 7 })),
    );
    check(
        SPARED,
        cheap(),
        update("Product", "p1", json!({ "title": "x" })),
    );
}

#[test]
fn children_concern_their_parents_only() {
    let first = || by_id("p1").fields(["variants.sku"]);
    check(
        CLEARED,
        first(),
        put("Variant", json!({ "id": "v9", "product_id": "p1" })),
    );
    check(
        SPARED,
        first(),
        put("Variant", json!({ "id": "v9", "product_id": "p2" })),
    );
    check(
        CLEARED,
        first(),
        update("Variant", "v1", json!({ "sku": "x" })),
    );
    check(
        SPARED,
        first(),
        update("Variant", "v3", json!({ "sku": "x" })),
    );
    check(
        CLEARED,
        first(),
        update("Variant", "v1", json!({ "product_id": "p2" })),
    );
    check(
        CLEARED,
        first(),
        update("Variant", "v3", json!({ "product_id": "p1" })),
    );
    check(
        CLEARED,
        first(),
        update("Variant", "v1", json!({ "rank": 0 })),
    );
    check(
        CLEARED,
        by_id("p3").fields(["variants.sku"]),
        put("Variant", json!({ "id": "v9", "product_id": "p3" })),
    );
}

#[test]
fn a_null_relation_depends_on_its_key() {
    let third = || by_id("p3").fields(["collection.name"]);
    check(
        CLEARED,
        third(),
        update("Product", "p3", json!({ "collection_id": "c1" })),
    );
    check(
        SPARED,
        third(),
        update("Product", "p1", json!({ "collection_id": null })),
    );
    check(
        SPARED,
        third(),
        update("Collection", "c1", json!({ "name": "x" })),
    );
    // A key that leads nowhere yet.
    let dangling = |store: &MemoryResolver| {
        store
            .put("Collection", json!({ "id": "c9", "name": "new" }))
            .unwrap()
    };
    let before = store();
    before
        .update("Product", "p3", json!({ "collection_id": "c9" }))
        .unwrap();
    let tags = ready(graph(&before).load(&third(), &GraphOptions::default()))
        .unwrap()
        .tags();
    assert!(!common(&tags, &dangling(&before)).is_empty());
}

#[test]
fn links_concern_the_rows_at_their_ends() {
    let second = || by_id("p2").fields(["channels.name"]);
    let link =
        |product: &str, channel: &str| json!({ "product_id": product, "channel_id": channel });
    check(
        CLEARED,
        second(),
        put("LinkProductChannel", link("p2", "app")),
    );
    check(
        SPARED,
        second(),
        put("LinkProductChannel", link("p3", "app")),
    );
    check(CLEARED, second(), remove("LinkProductChannel", "p2|web"));
    check(SPARED, second(), remove("LinkProductChannel", "p1|web"));
    check(
        CLEARED,
        second(),
        update("Channel", "web", json!({ "name": "x" })),
    );
    check(
        SPARED,
        second(),
        update("Channel", "app", json!({ "name": "x" })),
    );

    // A list filtered by the other end.
    let in_app = || {
        products()
            .fields(["id"])
            .filters(json!({ "channels": { "id": "app" } }))
    };
    check(
        CLEARED,
        in_app(),
        put("LinkProductChannel", link("p2", "app")),
    );
    check(
        SPARED,
        in_app(),
        put("LinkProductChannel", link("p3", "web")),
    );
    check(CLEARED, in_app(), remove("LinkProductChannel", "p1|app"));
    // Medusa tells of a link by the keys at its ends.
    let told = ChangeEvent::parse("LinkProductChannel.attached", &link("p2", "app")).unwrap();
    check(CLEARED, second(), |_| told.clone());
    check(SPARED, by_id("p3").fields(["channels.name"]), |_| {
        told.clone()
    });
}

#[test]
fn declared_dependencies_concern_the_rows_they_are_keyed_by() {
    let stock = || {
        GraphQuery::new("variant")
            .fields(["stock"])
            .filters(json!({ "id": "v1" }))
    };
    check(
        CLEARED,
        stock(),
        update("Level", "l1", json!({ "quantity": 1 })),
    );
    check(
        CLEARED,
        stock(),
        put(
            "Level",
            json!({ "id": "l2", "variant_id": "v1", "quantity": 1 }),
        ),
    );
    check(
        SPARED,
        stock(),
        put(
            "Level",
            json!({ "id": "l2", "variant_id": "v2", "quantity": 1 }),
        ),
    );
    let sku = || {
        GraphQuery::new("variant")
            .fields(["sku"])
            .filters(json!({ "id": "v1" }))
    };
    check(
        UNRELATED,
        sku(),
        update("Level", "l1", json!({ "quantity": 1 })),
    );
}

#[test]
fn events_that_tell_little_clear_what_they_could_mean() {
    let event = |name: &str, id: &str| ChangeEvent::parse(name, &json!({ "id": id })).unwrap();
    let first = || by_id("p1").fields(["variants.sku"]);
    check(CLEARED, first(), |_| event("product.updated", "p1"));
    check(SPARED, first(), |_| event("product.updated", "p2"));
    check(SPARED, first(), |_| event("product.created", "p9"));
    check(CLEARED, published(), |_| event("product.created", "p9"));
    check(CLEARED, published(), |_| event("product.deleted", "p3"));
    // Whose variant it is is not told.
    check(CLEARED, first(), |_| event("variant.created", "v9"));
    check(CLEARED, first(), |_| event("variant.updated", "v3"));
    // A name of another release, whose entries nothing finer is certain to reach.
    check(CLEARED, first(), |_| {
        event("variant.updated", "v3").with_changed(["rank_shown_elsewhere"])
    });
    for query in [first(), published()] {
        check(CLEARED, query, |_| ChangeEvent::everything("Product"));
    }
    check(UNRELATED, published(), |_| {
        ChangeEvent::everything("Variant")
    });
}

#[test]
fn a_soft_deletion_is_a_deletion() {
    let deleted = || json!({ "deleted_at": "2026-01-01T00:00:00Z" });
    check(CLEARED, published(), update("Product", "p1", deleted()));
    check(CLEARED, by_id("p1"), update("Product", "p1", deleted()));
    check(SPARED, published(), update("Product", "p3", deleted()));
    check(SPARED, by_id("p1"), update("Product", "p2", deleted()));
}

#[test]
fn too_many_tags_become_coarser_ones() {
    let store = store();
    let tags = |fields_max, rows_max| {
        let limits = TagLimits {
            fields_max,
            rows_max,
            ..TagLimits::default()
        };
        let graph = Graph::builder(schema(), store.clone())
            .limits(limits)
            .build();
        let query = products().fields(["title", "variants.sku"]);
        let tags = ready(graph.load(&query, &GraphOptions::default()))
            .unwrap()
            .tags();
        assert_eq!(graph.stats().collapsed, tags.collapsed as u64);
        let variants = tags.tags.iter().filter(|tag| tag.starts_with("Variant:"));
        (
            tags.collapsed,
            variants.map(str::to_owned).collect::<Vec<_>>(),
        )
    };
    let (collapsed, fine) = tags(512, 1_024);
    assert_eq!(collapsed, 0);
    assert!(
        fine.contains(&"Variant:product_id=p1#sku".to_owned()),
        "{fine:?}"
    );
    let (collapsed, rows) = tags(3, 1_024);
    assert_eq!(collapsed, 0);
    assert!(
        rows.contains(&"Variant:product_id=p1".to_owned()),
        "{rows:?}"
    );
    let (collapsed, coarse) = tags(2, 2);
    assert_eq!(collapsed, 1);
    assert_eq!(
        coarse,
        [
            "Variant:*",
            "Variant:list:+",
            "Variant:list:sku",
            "Variant:list:rank",
            "Variant:list:product_id"
        ],
    );
}

#[test]
fn too_many_tags_of_all_entities_become_coarser_where_there_are_most() {
    let store = store();
    let count = |total_max| {
        let limits = TagLimits {
            total_max,
            ..TagLimits::default()
        };
        let graph = Graph::builder(schema(), store.clone())
            .limits(limits)
            .build();
        let query = products().fields(["title", "variants.sku", "channels.name"]);
        let tags = ready(graph.load(&query, &GraphOptions::default()))
            .unwrap()
            .tags();
        (tags.tags.len(), tags.collapsed)
    };
    let (all, collapsed) = count(4_000);
    assert_eq!(collapsed, 0);
    let (fewer, _) = count(all - 1);
    assert!(fewer < all);
    let (fewest, collapsed) = count(0);
    assert!(fewest < fewer && collapsed >= 3, "{fewest} {collapsed}");
}

#[test]
fn compatible_tags_are_medusas() {
    let graph = Graph::builder(schema(), store())
        .precision(Precision::Compatible)
        .build();
    let query = products()
        .fields(["variants.sku", "channels.id"])
        .filters(json!({ "id": "p3" }));
    let tags = ready(graph.load(&query, &GraphOptions::default()))
        .unwrap()
        .tags();
    let mut tags: Vec<&str> = tags.tags.iter().collect();
    tags.sort_unstable();
    assert_eq!(
        tags,
        [
            "Channel:list:*",
            "LinkProductChannel:list:*",
            "Product:list:*",
            "Product:p3",
            "Variant:list:*"
        ],
    );
}

#[test]
fn an_unknown_entity_is_told() {
    let event = ChangeEvent::parse("invoice.created", &json!({ "id": "inv_1" })).unwrap();
    let error = ChangeTags::new(Arc::new(schema())).of(&event).unwrap_err();
    assert_eq!(
        error.to_string(),
        "change of \"Invoice\", which the schema does not have"
    );
    let tags = compatible_tags(&event);
    assert!(tags.contains("Invoice:inv_1") && tags.contains("Invoice:list:*"));
}
