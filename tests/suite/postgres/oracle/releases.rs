//! What the consumers read: the schemas of three releases and their queries.

use std::sync::Arc;

use mcache_graph::{Direction, Entity, Field, GraphQuery, Pagination, Relation, Schema};
use serde_json::{Value, json};

use crate::postgres::oracle_keys;

/// The releases of the service: each knows more, or other things, than the one before.
pub(super) fn release(number: usize) -> Arc<Schema> {
    let posts = |by| Relation::has_many("posts", "Post", "author_id").ordered_by(by);
    let author = Entity::new("Author")
        .id_type(mcache_graph::FieldType::Number)
        .field(Field::text("name"));
    let post = Entity::new("Post")
        .id_type(mcache_graph::FieldType::Uuid)
        .field("title")
        .field(Field::number("author_id"));
    let (author, post) = match number {
        0 => (author.relation(posts("title")), post),
        1 => (
            author
                .field(Field::text("mood"))
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at")
                .relation(posts("rank")),
            post.field(Field::number("rank"))
                .field(Field::text("token").lookup()),
        ),
        _ => (
            author
                .field(Field::text("mood").lookup())
                .field(Field::number("score").lookup())
                .field(Field::text("token"))
                .field(Field::timestamp("seen_at"))
                .relation(posts("rank")),
            post.field(Field::number("rank").lookup())
                .field(Field::json("doc")),
        ),
    };
    let builder = Schema::builder().entity(author).entity(post);
    let builder = oracle_keys::entities(number)
        .into_iter()
        .fold(builder, |builder, entity| builder.entity(entity));
    Arc::new(builder.build().unwrap())
}

/// The queries of a release.
pub(super) fn queries(number: usize) -> Vec<GraphQuery> {
    let author = || GraphQuery::new("author");
    let post = || GraphQuery::new("post");
    let page = |field: &str, direction| Pagination::new().take(4).order(field, direction);
    let mut queries = vec![
        author()
            .fields(["id", "name"])
            .filters(json!({ "id": IDS[0] })),
        author()
            .fields(["name", "posts.title"])
            .filters(json!({ "id": [IDS[1], IDS[2]] })),
        author()
            .fields(["id", "name"])
            .pagination(page("name", Direction::Asc)),
        post()
            .fields(["id", "title"])
            .pagination(page("title", Direction::Desc)),
        post()
            .fields(["title"])
            .filters(json!({ "author_id": IDS[0] })),
        post()
            .fields(["title"])
            .filters(json!({ "author_id": IDS[1] })),
    ];
    queries.extend(oracle_keys::queries(number));
    for id in IDS {
        queries.push(author().fields(["name"]).filters(json!({ "id": id })));
        queries.push(post().fields(["id"]).filters(json!({ "author_id": id })));
    }
    for n in 0..POSTS {
        queries.push(post().fields(["title"]).filters(json!({ "id": uuid(n) })));
    }
    if number == 1 {
        for mood in MOODS {
            queries.push(author().fields(["name"]).filters(json!({ "mood": mood })));
        }
        for n in 0..POSTS {
            queries.push(post().fields(["rank"]).filters(json!({ "id": uuid(n) })));
        }
        queries.extend([
            author()
                .fields(["id", "mood"])
                .filters(json!({ "mood": "glad" })),
            author()
                .fields(["id"])
                .filters(json!({ "mood": { "$gte": "glad" } })),
            post()
                .fields(["id", "rank"])
                .filters(json!({ "token": "\\x00ff" })),
            author()
                .fields(["mood", "posts.rank"])
                .pagination(page("mood", Direction::Desc)),
        ]);
    }
    if number == 2 {
        for rank in RANKS {
            queries.push(
                post()
                    .fields(["title"])
                    .filters(json!({ "rank": digits(rank) })),
            );
        }
        for n in 0..POSTS {
            queries.push(post().fields(["doc"]).filters(json!({ "id": uuid(n) })));
        }
        queries.extend([
            author()
                .fields(["id", "score"])
                .filters(json!({ "mood": "sad" })),
            author()
                .fields(["id", "seen_at", "token"])
                .filters(json!({ "score": SCORES[0] })),
            author()
                .fields(["id", "seen_at", "token"])
                .filters(json!({ "score": SCORES[1] })),
            post()
                .fields(["id", "doc"])
                .filters(json!({ "rank": RANKS[0] })),
            post()
                .fields(["id", "doc"])
                .filters(json!({ "rank": { "$gt": 5 } })),
        ]);
    }
    queries
}

/// Told apart by no double.
pub const IDS: [&str; 4] = [
    "90071992547409920001",
    "90071992547409920002",
    "123456789012345678901234567890",
    "123456789012345678901234567891",
];
pub const SCORES: [&str; 2] = ["0.10000000000000000001", "0.10000000000000000002"];
pub const RANKS: [&str; 3] = ["900719925474099300011", "3", "7.5"];
pub const MOODS: [&str; 3] = ["sad", "glad", "wild"];

/// How many posts there can be.
pub const POSTS: u64 = 12;

/// As a filter says it: digits that a double cannot hold are a string.
pub(super) fn digits(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(double) if double.to_string() == text => serde_json::from_str(text).unwrap(),
        _ => Value::String(text.to_owned()),
    }
}

pub fn uuid(n: u64) -> String {
    format!("00000000-0000-0000-0000-{n:012}")
}
