//! Graph queries through a near cache: each result for itself, decoded once and shared.

use std::sync::Arc;

use mcache::Source;
use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
use serde_json::json;

use super::*;
use crate::support::runtime::run;

fn shop() -> (Arc<Schema>, Arc<MemoryResolver>) {
    let schema = Schema::builder().entity(Entity::new("Product").field("title"));
    let schema = Arc::new(schema.build().expect("a schema"));
    let store = Arc::new(MemoryResolver::new(schema.clone()));
    for id in ["p1", "p2", "p3"] {
        let row = json!({ "id": id, "title": format!("title of {id}") });
        store.put("Product", row).expect("a product");
    }
    (schema, store)
}

#[test]
fn results_are_near_each_for_itself_and_shared() {
    let server = options().start();
    let mut session = server.session();
    session.await_predecessors();
    run(async {
        let (cache, writer) = (near(&server.url()).await, plain(&server.url()).await);
        let (schema, store) = shop();
        let graph = Graph::builder(schema, store.clone()).cache(cache.clone());
        let graph = graph.build();
        let query = GraphQuery::new("product").fields(["title"]);
        let options = GraphOptions::cached();
        let ids = ["p1", "p2", "p1"];
        let each = || async {
            let served = graph.serve_each_shared(&query, "id", ids, &options).await;
            served.expect("it answers")
        };
        let all = || async {
            let served = graph.serve_shared(&query, &options).await;
            served.expect("it answers")
        };
        let began = Instant::now();
        loop {
            let near = |source| source == Source::Near;
            if each().await.iter().all(|it| near(it.source)) && near(all().await.source) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", stats(&cache));
        }

        let before = executed(&mut session);
        let (first, second) = (each().await, each().await);
        for (at, served) in first.iter().enumerate() {
            let title = format!("title of {}", ids[at]);
            assert_eq!(served.value.data, [json!({ "title": title })]);
            assert!(Arc::ptr_eq(&served.value, &second[at].value), "one for all");
        }
        assert!(Arc::ptr_eq(&all().await.value, &all().await.value));
        // Those that are asked for without sharing are near as well.
        let owned = graph.serve_each(&query, "id", ids, &options).await;
        assert!(
            owned
                .expect("it answers")
                .iter()
                .all(|it| it.source == Source::Near)
        );
        let owned = graph.serve(&query, &options).await.expect("it answers");
        assert_eq!(owned.source, Source::Near);
        assert_eq!(executed(&mut session), before);

        // One product changes: its result is gone, the other's is not.
        let row = json!({ "id": "p2", "title": "another" });
        let event = store.put("Product", row).expect("a product");
        let tags = graph.change_tags().of(&event).expect("it is known");
        let told = writer.invalidate(tags.iter()).await.expect("sent");
        assert!(told.is_settled());
        let after = each().await;
        assert_eq!(after[1].value.data, [json!({ "title": "another" })]);
        assert_ne!(after[1].source, Source::Near);
        assert_eq!([after[0].source, after[2].source], [Source::Near; 2]);
    });
}
