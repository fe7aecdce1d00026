//! What has a key of several columns in the oracle: tables, entities, queries, changes, and how tags of it are broken.

use harness::Seed;
use mcache_graph::{Direction, Entity, Field, GraphQuery, Pagination, Relation};
use serde_json::json;

use super::oracle::pick;

pub const TABLES: &str = "
    CREATE TABLE item (shop text, nr bigint, name text, PRIMARY KEY (shop, nr));
    CREATE TABLE stock (shop text, nr bigint, place text, amount int, PRIMARY KEY (shop, nr, place));
    CREATE TABLE label (shop text, word text, color text, PRIMARY KEY (shop, word));
    CREATE TABLE item_label (shop text, nr bigint, word text, PRIMARY KEY (shop, nr, word))";

/// Two of them run into each other unless they are escaped.
const SHOPS: [&str; 3] = ["s", "s|1", "t"];

/// Items of shops, what is in stock of them, and labels they are linked with.
pub fn entities(number: usize) -> Vec<Entity> {
    let item = Entity::new("Item")
        .key(["shop", "nr"])
        .field(Field::integer("nr"))
        .relation(Relation::has_many("stock", "Stock", ["shop", "nr"]))
        .relation(Relation::linked_many("labels", "Label", "ItemLabel"));
    let stock = Entity::new("Stock")
        .key(["shop", "nr", "place"])
        .fields([Field::integer("nr"), Field::integer("amount")])
        .relation(Relation::belongs_to("item", "Item", ["shop", "nr"]));
    let label = Entity::new("Label")
        .key(["shop", "word"])
        .field("color")
        .relation(Relation::linked_many("items", "Item", "ItemLabel"));
    let link = Entity::link(
        "ItemLabel",
        (["shop", "nr"], "Item"),
        (["shop", "word"], "Label"),
    );
    let item = if number == 0 {
        item
    } else {
        item.field("name")
    };
    vec![item, stock, label, link.field(Field::integer("nr"))]
}

/// Queries by keys of several columns, and over relations by them.
pub fn queries(number: usize) -> Vec<GraphQuery> {
    let item = || GraphQuery::new("item");
    let of = |shop: &str, nr: u64| json!({ "shop": shop, "nr": nr });
    let mut queries = vec![
        item()
            .fields(["nr", "stock.amount"])
            .filters(of(SHOPS[0], 1)),
        item()
            .fields(["nr", "stock.amount"])
            .filters(of(SHOPS[1], 1)),
        item()
            .fields(["nr", "labels.color"])
            .filters(of(SHOPS[0], 2)),
        item()
            .fields(["shop", "nr"])
            .filters(json!({ "$or": [of(SHOPS[0], 3), of(SHOPS[2], 3)] })),
        GraphQuery::new("label")
            .fields(["word", "items.nr"])
            .filters(json!({ "shop": SHOPS[0], "word": ["new", "old|new"] })),
        GraphQuery::new("stock")
            .fields(["place", "item.nr"])
            .filters(json!({ "shop": SHOPS[1], "nr": 2 })),
        item().fields(["nr"]).filters(json!({ "shop": SHOPS[2] })),
        item()
            .fields(["nr"])
            .filters(json!({ "labels": { "color": "red" } })),
    ];
    if number > 0 {
        queries.extend([
            item().fields(["name"]).filters(of(SHOPS[0], 1)),
            GraphQuery::new("stock")
                .fields(["amount", "item.name"])
                .pagination(Pagination::new().take(5).order("amount", Direction::Desc)),
        ]);
    }
    queries
}

/// A tag with the first part of its key.
pub fn first_part(tag: String) -> String {
    let is_separator = |(at, c): &(usize, char)| *c == '|' && !tag[..*at].ends_with('\\');
    match tag.char_indices().find(is_separator) {
        Some((at, _)) => {
            let aspect = tag[at..].find('#').map_or("", |aspect| &tag[at + aspect..]);
            format!("{}{aspect}", &tag[..at])
        }
        None => tag,
    }
}

/// One change of what has a key of several columns, the key itself included.
pub fn statement(seed: &mut Seed) -> String {
    let (shop, other) = (pick(seed, &SHOPS), pick(seed, &SHOPS));
    let (nr, nr2) = (seed.u64(1..4), seed.u64(1..4));
    let word = pick(seed, &["new", "old|new", "1"]);
    let color = pick(seed, &["red", "blue"]);
    let place = pick(seed, &["a", "b|c"]);
    let (n, kind) = (seed.u64(..5), seed.u64(..13));
    match kind {
        0..=1 => format!("INSERT INTO item VALUES ('{shop}', {nr}, '{color}{n}') ON CONFLICT (shop, nr) DO UPDATE SET name = excluded.name"),
        2..=3 => format!("INSERT INTO stock VALUES ('{shop}', {nr}, '{place}', {n}) ON CONFLICT (shop, nr, place) DO UPDATE SET amount = excluded.amount"),
        4 => format!("INSERT INTO label VALUES ('{shop}', '{word}', '{color}') ON CONFLICT (shop, word) DO UPDATE SET color = excluded.color"),
        5 => format!("INSERT INTO item_label VALUES ('{shop}', {nr}, '{word}') ON CONFLICT DO NOTHING"),
        6 => format!("DELETE FROM item WHERE shop = '{shop}' AND nr = {nr}"),
        7 => format!("DELETE FROM item_label WHERE shop = '{shop}' AND word = '{word}'"),
        8 => format!("UPDATE item SET shop = '{other}', nr = {nr2} WHERE shop = '{shop}' AND nr = {nr}
             AND NOT EXISTS (SELECT FROM item WHERE shop = '{other}' AND nr = {nr2})"),
        9 => format!("UPDATE stock SET nr = {nr2} WHERE shop = '{shop}' AND nr = {nr} AND place = '{place}'
             AND NOT EXISTS (SELECT FROM stock WHERE shop = '{shop}' AND nr = {nr2} AND place = '{place}')"),
        10 => format!("UPDATE item_label SET nr = {nr2} WHERE shop = '{shop}' AND nr = {nr} AND word = '{word}'
             AND NOT EXISTS (SELECT FROM item_label WHERE shop = '{shop}' AND nr = {nr2} AND word = '{word}')"),
        11 => format!("UPDATE stock SET amount = {n} WHERE shop = '{shop}' AND nr = {nr}"),
        _ => format!("UPDATE item SET name = '{color}' WHERE shop = '{shop}' AND nr = {nr}"),
    }
}
