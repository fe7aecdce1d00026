//! One query for each of several values of a field, looked up together and loaded together.
//!
//! What many pages are made of, in ever new combinations (the variants of a cart, the products of a list), is kept once
//! each, not once per combination.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use serde_json::{Map, Value};

use super::error::{GraphError, QueryError};
use super::filter::Filter;
use super::handle::Graph;
use super::key::compute_key;
use super::options::GraphOptions;
use super::plan::Plan;
use super::query::{GraphQuery, GraphResult};
use super::schema::{Entity, Field};
use mcache::{Codec, Loaded, Served};

/// One of the values, and the key of the query for it.
#[derive(Clone)]
struct Each {
    key: String,
    value: Value,
}

impl AsRef<[u8]> for Each {
    fn as_ref(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl PartialEq for Each {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Each {}

impl Hash for Each {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl<C: Codec> Graph<C> {
    /// Answers a query for each of these values of a field: the same as asking [`query`](Self::query) as often, each time
    /// with `field: value` added to the filters, but with one look into the cache for all of them and one load for all that are
    /// not there.
    ///
    /// Each answer is an entry of its own, under the same key and with the same tags as if it had been asked for alone. A set
    /// of values that nobody has asked for before is answered from the entries of others, and a change clears the
    /// answers it concerns and not the whole set.
    ///
    /// The results are in the order of the values. A value that no row has gives a result without rows.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mcache_graph::{Entity, Field, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
    /// # use serde_json::json;
    /// # let schema = Arc::new(Schema::builder().entity(Entity::new("Variant").field("sku").field(Field::text("product_id").lookup())).build()?);
    /// # let store = Arc::new(MemoryResolver::new(schema.clone()));
    /// # for (id, product) in [("v1", "p1"), ("v2", "p1"), ("v3", "p2")] {
    /// #     store.put("Variant", json!({ "id": id, "sku": id, "product_id": product }))?;
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let graph = Graph::builder(schema, store).build();
    /// let query = GraphQuery::new("variant").fields(["sku"]);
    /// let of_products = graph.query_each(&query, "product_id", ["p1", "p2"], &GraphOptions::cached()).await?;
    /// assert_eq!(of_products[0].data, [json!({ "sku": "v1" }), json!({ "sku": "v2" })]);
    /// assert_eq!(of_products[1].data, [json!({ "sku": "v3" })]);
    /// # Ok::<(), mcache_graph::GraphError>(()) }).unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`QueryError::Each`] if the field is neither the id nor a [lookup](super::Field::lookup)
    /// (keys of relations are), if the query is one for a page, if its filters name the field already, if a value is not a single
    /// one, and if the options give a key.
    ///
    /// # Cancel safety
    ///
    /// As [`Batch::get_or_load_many`](mcache::Batch::get_or_load_many).
    pub async fn query_each<V: Into<Value>>(
        &self,
        query: &GraphQuery,
        field: &str,
        values: impl IntoIterator<Item = V>,
        options: &GraphOptions,
    ) -> Result<Vec<GraphResult>, GraphError> {
        let served = self.serve_each(query, field, values, options).await?;
        Ok(served.into_iter().map(|served| served.value).collect())
    }

    /// As [`query_each`](Self::query_each), and says where each result came from.
    ///
    /// # Errors
    ///
    /// As [`query_each`](Self::query_each).
    pub async fn serve_each<V: Into<Value>>(
        &self,
        query: &GraphQuery,
        field: &str,
        values: impl IntoIterator<Item = V>,
        options: &GraphOptions,
    ) -> Result<Vec<Served<GraphResult>>, GraphError> {
        let values: Vec<Value> = values.into_iter().map(Into::into).collect();
        let asked = self.each(query, field, values, options).await?;
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let load = |missing| self.load_each(query, field, missing, options);
        let mut found = match self.cache_for(options) {
            Some(cache) => {
                let batch = cache.keys(asked.iter().cloned());
                let batch = batch.policy(options.cache.policy());
                if options.cache.refreshes_in_background() {
                    let (graph, query, options) = (self.clone(), query.clone(), options.clone());
                    let field = field.to_owned();
                    let load = move |missing| {
                        let (graph, query, options) =
                            (graph.clone(), query.clone(), options.clone());
                        let field = field.clone();
                        async move { graph.load_each(&query, &field, missing, &options).await }
                    };
                    batch.load_many_detached(load).await?
                } else {
                    batch.load_many(load).await?
                }
            }
            None => {
                let loaded = load(asked.clone()).await?.into_iter();
                loaded
                    .map(|(each, loaded)| (each, Served::bypass(loaded.value)))
                    .collect()
            }
        };
        let positions = asked.iter().enumerate();
        let last: HashMap<&Each, usize> = positions.map(|(at, each)| (each, at)).collect();
        let mut results = Vec::with_capacity(asked.len());
        for (at, each) in asked.iter().enumerate() {
            // Whoever asks twice for the same gets a copy.
            results.extend(match last[each] == at {
                true => found.remove(each),
                false => found.get(each).cloned(),
            });
        }
        Ok(results)
    }

    /// Checks what is asked for, and names it.
    async fn each(
        &self,
        query: &GraphQuery,
        field: &str,
        values: Vec<Value>,
        options: &GraphOptions,
    ) -> Result<Vec<Each>, GraphError> {
        let plan = Plan::new(self.schema(), query)?;
        let entity = self.schema().at(plan.levels[0].entity);
        let refuse = |why| QueryError::Each {
            entity: entity.name().into(),
            field: field.into(),
            why,
        };
        // Equal values of other fields may be written differently, and then nobody knows whose a row is.
        let known = known_field(entity, field)?;
        if !known.lookup && &*known.name != "id" {
            return Err(refuse("it is neither the id nor a lookup").into());
        }
        if plan.paged {
            return Err(refuse("a page is of one list, not of several").into());
        }
        if query.filters.get(field).is_some() {
            return Err(refuse("the filters name it already").into());
        }
        if options.cache.given_key().is_some() {
            return Err(refuse("several results cannot have one key").into());
        }
        if values
            .iter()
            .any(|value| value.is_null() || value.is_array() || value.is_object())
        {
            return Err(refuse("expected single values").into());
        }
        let origin = self.origin().await?;
        let mut query = query.clone();
        let mut named = Vec::with_capacity(values.len());
        for value in values {
            set_filter(&mut query, field, value.clone());
            named.push(Each {
                key: compute_key(self.schema(), origin, &query, options),
                value,
            });
        }
        Ok(named)
    }

    /// One load for all of them, and what each would have been loaded alone.
    async fn load_each(
        &self,
        query: &GraphQuery,
        field: &str,
        missing: Vec<Each>,
        options: &GraphOptions,
    ) -> Result<HashMap<Each, Loaded<GraphResult>>, GraphError> {
        let mut query = query.clone();
        let values = missing.iter().map(|each| each.value.clone()).collect();
        set_filter(&mut query, field, Value::Array(values));
        let mut plan = Plan::new(self.schema(), &query)?;
        let entity = self.schema().at(plan.levels[0].entity);
        let known = known_field(entity, field)?;
        // To know whose a row is; it is not shown for that.
        if !plan.levels[0].fetch.contains(&known.name) {
            plan.levels[0].fetch.push(known.name.clone());
        }
        let loaded = self.load_plan(&plan, &query, options).await?;

        let mut askers: HashMap<_, Vec<usize>> = HashMap::with_capacity(missing.len());
        for (asker, each) in missing.iter().enumerate() {
            let text = known.kind.canonical_text(&each.value);
            askers.entry(text).or_default().push(asker);
        }
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); missing.len()];
        for (position, row) in loaded.levels[0].rows.iter().enumerate() {
            let text = row
                .get(field)
                .and_then(|value| known.kind.canonical_text(value));
            let whose = askers.get(&text).ok_or_else(|| GraphError::Row {
                entity: entity.name().into(),
                field: field.into(),
            })?;
            for &asker in whose {
                groups[asker].push(position as u32);
            }
        }
        let parts = loaded.split(&plan, groups);

        let tagged = options.cache.computes_tags();
        let mut results = HashMap::with_capacity(missing.len());
        for (each, loaded) in missing.iter().zip(parts) {
            set_filter(&mut query, field, each.value.clone());
            plan.filter = Filter::parse(self.schema(), entity, &query.filters)?;
            results.insert(each.clone(), self.finish(&plan, loaded, tagged));
        }
        Ok(results)
    }
}

fn known_field<'e>(entity: &'e Entity, field: &str) -> Result<&'e Field, QueryError> {
    let known = entity.get_field(field);
    known.ok_or_else(|| QueryError::UnknownField {
        entity: entity.name().into(),
        field: field.into(),
    })
}

fn set_filter(query: &mut GraphQuery, field: &str, value: Value) {
    if query.filters.is_null() {
        query.filters = Value::Object(Map::new());
    }
    if let Value::Object(filters) = &mut query.filters {
        filters.insert(field.to_owned(), value);
    }
}
