//! A query for each of several values is the same as several queries: results, keys and tags.

use std::collections::BTreeSet;
use std::sync::Arc;

use harness::Seed;
use mcache::{Cache, MemoryProvider, Source};
use mcache_graph::{
    Entity, Graph, GraphError, GraphOptions, GraphQuery, MemoryResolver, QueryError, Schema,
};
use serde_json::{Value, json};

use super::is_long;
use super::queries::random_query;
use super::world::{World, random_value};
use crate::support::runtime;

const CASES: u32 = 2_000;
const CASES_LONG: u32 = 100_000;

#[test]
fn a_query_for_each_value_is_as_many_queries() {
    let mut seed = Seed::draw("graph_oracle::a_query_for_each_value_is_as_many_queries");
    let cases = if is_long() { CASES_LONG } else { CASES };
    let mut compared = Compared::default();
    runtime::run(async {
        while compared.cases < cases {
            let World { schema, store } = World::random(&mut seed);
            let case = Case::new(schema, Arc::new(store)).await;
            for _ in 0..10 {
                case.run(&mut seed, &mut compared).await;
            }
        }
    });
    println!("{compared:?}");
    assert!(
        compared.rows > cases / 2,
        "hardly anything was found: {compared:?}"
    );
    assert!(compared.hits > cases / 10, "{compared:?}");
}

#[derive(Debug, Default)]
struct Compared {
    cases: u32,
    results: u32,
    rows: u32,
    hits: u32,
}

/// One store, asked in both ways.
struct Case {
    schema: Arc<Schema>,
    alone: (Graph, Cache),
    together: (Graph, Cache),
}

impl Case {
    async fn new(schema: Arc<Schema>, store: Arc<MemoryResolver>) -> Self {
        Self {
            alone: graph(&schema, &store).await,
            together: graph(&schema, &store).await,
            schema,
        }
    }

    async fn run(&self, seed: &mut Seed, compared: &mut Compared) {
        let mut query = without_page(random_query(seed, &self.schema));
        if seed.bool() {
            // Few rows meet a random filter and a random value.
            query.filters = Value::Null;
        }
        let entity = self
            .schema
            .entity(&query.entity)
            .expect("it is drawn from the schema");
        let Some(fields) = random_fields(seed, entity, &query.filters) else {
            return;
        };
        let field = &*fields;
        let value = |seed: &mut Seed| {
            let mut parts = field
                .iter()
                .map(|name| random_value(seed, &self.schema, entity, name, false));
            match field.len() {
                1 => parts.next().unwrap_or_default(),
                _ => Value::Array(parts.collect()),
            }
        };
        let values: Vec<Value> = (0..seed.usize(1..6)).map(|_| value(seed)).collect();
        let options = GraphOptions::cached();

        // Some were asked for before.
        for value in values.iter().filter(|_| seed.chance(30)) {
            let _ = self
                .together
                .0
                .query(&with(&query, field, value), &options)
                .await;
        }
        let each = self
            .together
            .0
            .serve_each(&query, field, values.clone(), &options);
        let each = match each.await {
            Ok(each) => each,
            Err(GraphError::Query(QueryError::Cycle { .. })) => return,
            Err(error) => panic!("{error} ({query:?}, {field:?}, {values:?}, {seed})"),
        };
        assert_eq!(each.len(), values.len());
        compared.cases += 1;
        for (value, served) in values.iter().zip(each) {
            let single = with(&query, field, value);
            let what = || format!("{single:?} of {values:?} ({seed})");
            let expected = self
                .alone
                .0
                .query(&single, &options)
                .await
                .expect("it works together");
            assert_eq!(served.value, expected, "{}", what());
            assert_eq!(
                self.tags(&self.together, &single).await,
                self.tags(&self.alone, &single).await,
                "{}",
                what()
            );
            compared.results += 1;
            compared.rows += expected.data.len() as u32;
            compared.hits += u32::from(served.source == Source::Hit);
        }
    }

    async fn tags(&self, (graph, cache): &(Graph, Cache), query: &GraphQuery) -> BTreeSet<Vec<u8>> {
        let options = GraphOptions::cached();
        let key = graph
            .key(query, &options)
            .await
            .expect("a resolver in memory knows where its rows are");
        let found = cache.inspect(key).await.expect("it is in this process");
        let tags = found.expect("it was just put there").tags;
        tags.iter().map(|tag| tag.to_vec()).collect()
    }
}

async fn graph(schema: &Arc<Schema>, store: &Arc<MemoryResolver>) -> (Graph, Cache) {
    let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
    let cache = cache.build().await.expect("it is in this process");
    let graph = Graph::builder(schema.clone(), store.clone());
    (graph.cache(cache.clone()).build(), cache)
}

fn without_page(mut query: GraphQuery) -> GraphQuery {
    if let Some(pagination) = &mut query.pagination {
        (pagination.skip, pagination.take) = (None, None);
    }
    query
}

/// The key or a lookup, not filtered by yet.
fn random_fields(seed: &mut Seed, entity: &Entity, filters: &Value) -> Option<Vec<String>> {
    let is_free = |names: &[String]| names.iter().all(|name| filters.get(name).is_none());
    let key: Vec<String> = entity
        .key_fields()
        .iter()
        .map(ToString::to_string)
        .collect();
    let key = Some(key).filter(|key| is_free(key));
    // Mostly what they are made for.
    if let Some(key) = key.filter(|_| seed.bool()) {
        return Some(key);
    }
    let relations = entity.relations().iter().filter(|relation| {
        let own = relation.target() == entity.name();
        own && relation.through().is_none() && relation.foreign().len() > 1
    });
    let of_relations = relations.map(|relation| -> Vec<String> {
        relation.foreign().iter().map(ToString::to_string).collect()
    });
    let lookups = entity.all_fields().iter().filter(|field| field.is_lookup());
    let lookups = lookups.map(|field| vec![field.name().to_owned()]);
    let known: Vec<Vec<String>> = lookups
        .chain(of_relations)
        .filter(|names| is_free(names))
        .collect();
    (!known.is_empty()).then(|| seed.pick(&known).clone())
}

fn with(query: &GraphQuery, fields: &[String], value: &Value) -> GraphQuery {
    let mut filters = query.filters.clone();
    if filters.is_null() {
        filters = json!({});
    }
    match (fields, value) {
        ([field], value) => filters[field] = value.clone(),
        (fields, values) => {
            for (position, field) in fields.iter().enumerate() {
                filters[field] = values[position].clone();
            }
        }
    }
    query.clone().filters(filters)
}
