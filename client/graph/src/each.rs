//! One query for each of several values of a field, looked up together and loaded together.
//!
//! What many pages are made of, in ever new combinations (the variants of a cart, the products of a list), is kept once
//! each, not once per combination.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{GraphError, QueryError};
use super::filter::{Filter, one_of_tuples};
use super::handle::Graph;
use super::key::compute_key;
use super::options::GraphOptions;
use super::plan::Plan;
use super::query::{GraphQuery, GraphResult};
use super::schema::{Field, FieldIndex, FieldNames, FieldType, ID, Name, joined};
use mcache::{Codec, Loaded, Served};

/// One of the values, and the key of the query for it.
#[derive(Clone)]
struct Each {
    key: String,
    /// One for each field.
    values: Vec<Value>,
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
    /// Answers a query for each of these values of a field: the same as asking [`query`](Self::query) as often, each
    /// time with `field: value` added to the filters, but with one look into the cache for all of them and one load for
    /// all that are not there.
    ///
    /// Each answer is an entry of its own, under the same key and with the same tags as if it had been asked for alone.
    /// A set of values that no caller has asked for before is answered from the entries of others, and a change clears
    /// the answers it concerns and not the whole set.
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
    /// Where a key has several fields, all are given, and each value is an array of as many:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
    /// # use serde_json::json;
    /// # let order = Entity::new("Order").key(["tenant", "number"]).field("state");
    /// # let schema = Arc::new(Schema::builder().entity(order).build()?);
    /// # let store = Arc::new(MemoryResolver::new(schema.clone()));
    /// # store.put("Order", json!({ "tenant": "a", "number": "7", "state": "paid" }))?;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let graph = Graph::builder(schema, store).build();
    /// let query = GraphQuery::new("order").fields(["state"]);
    /// let keys = [["a", "7"], ["b", "7"]];
    /// let orders = graph.query_each(&query, ["tenant", "number"], keys, &GraphOptions::cached()).await?;
    /// assert_eq!(orders[0].data, [json!({ "state": "paid" })]);
    /// assert!(orders[1].data.is_empty());
    /// # Ok::<(), mcache_graph::GraphError>(()) }).unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`QueryError::Each`] if the fields are neither the key nor a
    /// [lookup](super::Field::lookup) (what relations match is one), if the query is one for a page, if its filters
    /// name them already, if a value is not a single one for each field, and if the options give a key.
    ///
    /// # Cancel safety
    ///
    /// As [`Batch::get_or_load_many`](mcache::Batch::get_or_load_many).
    pub async fn query_each<V: Into<Value>>(
        &self,
        query: &GraphQuery,
        field: impl Into<FieldNames>,
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
        field: impl Into<FieldNames>,
        values: impl IntoIterator<Item = V>,
        options: &GraphOptions,
    ) -> Result<Vec<Served<GraphResult>>, GraphError> {
        let field = field.into();
        let fields = field.as_slice();
        let values = values.into_iter().map(Into::into).collect();
        let asked = self.each(query, fields, values, options).await?;
        let mut found = self.found(query, fields, asked.clone(), options).await?;
        let positions = asked.iter().enumerate();
        let last: HashMap<&Each, usize> = positions.map(|(at, each)| (each, at)).collect();
        let mut results = Vec::with_capacity(asked.len());
        for (at, each) in asked.iter().enumerate() {
            // A caller that asks twice for the same gets a copy.
            results.extend(match last[each] == at {
                true => found.remove(each),
                false => found.get(each).cloned(),
            });
        }
        Ok(results)
    }

    /// As [`serve_each`](Self::serve_each), shared as in [`serve_shared`](Self::serve_shared): each result that is near
    /// is neither decoded again nor copied, and only the others are looked up.
    ///
    /// # Errors
    ///
    /// As [`query_each`](Self::query_each).
    pub async fn serve_each_shared<V: Into<Value>>(
        &self,
        query: &GraphQuery,
        field: impl Into<FieldNames>,
        values: impl IntoIterator<Item = V>,
        options: &GraphOptions,
    ) -> Result<Vec<Served<Arc<GraphResult>>>, GraphError> {
        let field = field.into();
        let fields = field.as_slice();
        let values = values.into_iter().map(Into::into).collect();
        let asked = self.each(query, fields, values, options).await?;
        let cache = self.cache_for(options);
        let policy = options.cache.policy();
        let near = |each: &Each| cache?.key(each).policy(policy.clone()).near();
        let results: Vec<Option<Served<Arc<GraphResult>>>> = asked.iter().map(near).collect();
        let pairs = asked.iter().zip(&results);
        let others = pairs.filter(|(_, result)| result.is_none());
        let others: Vec<Each> = others.map(|(each, _)| each.clone()).collect();
        let found = Box::pin(self.found(query, fields, others, options)).await?;
        let found: HashMap<Each, Served<Arc<GraphResult>>> = found
            .into_iter()
            .map(|(each, served)| (each, served.map(Arc::new)))
            .collect();
        let pairs = asked.iter().zip(results);
        let results = pairs.filter_map(|(each, near)| near.or_else(|| found.get(each).cloned()));
        Ok(results.collect())
    }

    /// The results of these, from the cache or loaded.
    async fn found(
        &self,
        query: &GraphQuery,
        fields: &[Name],
        asked: Vec<Each>,
        options: &GraphOptions,
    ) -> Result<HashMap<Each, Served<GraphResult>>, GraphError> {
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let load = |missing| self.load_each(query, fields, missing, options);
        let Some(cache) = self.cache_for(options) else {
            let loaded = load(asked).await?.into_iter();
            return Ok(loaded
                .map(|(each, loaded)| (each, Served::bypass(loaded.value)))
                .collect());
        };
        let batch = cache.keys(asked).policy(options.cache.policy());
        if !options.cache.refreshes_in_background() {
            return batch.load_many(load).await;
        }
        let (graph, query, options) = (self.clone(), query.clone(), options.clone());
        let fields = fields.to_vec();
        let load = move |missing| {
            let (graph, query, options) = (graph.clone(), query.clone(), options.clone());
            let fields = fields.clone();
            async move { graph.load_each(&query, &fields, missing, &options).await }
        };
        batch.load_many_detached(load).await
    }

    /// Checks what is asked for, and names it.
    async fn each(
        &self,
        query: &GraphQuery,
        fields: &[Name],
        values: Vec<Value>,
        options: &GraphOptions,
    ) -> Result<Vec<Each>, GraphError> {
        let plan = Plan::new(self.schema(), query)?;
        let entity = self.schema().at(plan.levels[0].entity);
        let refuse = |why| QueryError::Each {
            entity: entity.name().into(),
            field: fields.join(", "),
            why,
        };
        if let Some(unknown) = fields.iter().find(|name| entity.get_field(name).is_none()) {
            return Err(QueryError::UnknownField {
                entity: entity.name().into(),
                field: unknown.to_string(),
            }
            .into());
        }
        // Equal values of other fields may be written differently, and then it is not known whose a row is.
        let mut sorted = fields.to_vec();
        sorted.sort_unstable();
        let is_these = |index: FieldIndex| {
            let parts = entity.parts_of(index);
            let mut names: Vec<&Name> = parts.map(|part| &entity.field_at(part).name).collect();
            names.sort_unstable();
            names.into_iter().eq(&sorted)
        };
        let mut known = std::iter::once(ID).chain(entity.lookups.iter().copied());
        if !known.any(is_these) {
            return Err(refuse(match fields {
                [_] => "it is neither the key nor a lookup",
                _ => "they are together neither the key nor what rows are matched by",
            })
            .into());
        }
        if plan.paged {
            return Err(refuse("a page is of one list, not of several").into());
        }
        if fields
            .iter()
            .any(|name| query.filters.get(&**name).is_some())
        {
            return Err(refuse("the filters name it already").into());
        }
        if options.cache.given_key().is_some() {
            return Err(refuse("several results cannot have one key").into());
        }
        let origin = self.origin().await?;
        let is_single = |value: &Value| !value.is_null() && !value.is_array() && !value.is_object();
        let mut query = query.clone();
        let mut named = Vec::with_capacity(values.len());
        for value in values {
            let values = match (value, fields.len()) {
                (value, 1) if is_single(&value) => vec![value],
                (_, 1) => return Err(refuse("expected single values").into()),
                (Value::Array(values), count)
                    if values.len() == count && values.iter().all(is_single) =>
                {
                    values
                }
                _ => {
                    return Err(refuse("expected arrays of one single value for each field").into());
                }
            };
            set_filters(&mut query, fields, &values);
            named.push(Each {
                key: compute_key(self.schema(), origin, &query, options),
                values,
            });
        }
        Ok(named)
    }

    /// One load for all of them, and what each would have been loaded alone.
    async fn load_each(
        &self,
        query: &GraphQuery,
        fields: &[Name],
        missing: Vec<Each>,
        options: &GraphOptions,
    ) -> Result<HashMap<Each, Loaded<GraphResult>>, GraphError> {
        let mut query = query.clone();
        let mut plan = Plan::new(self.schema(), &query)?;
        let entity = self.schema().at(plan.levels[0].entity);
        let asked = missing.iter().map(|each| &each.values);
        match fields {
            [field] => {
                let values: Vec<Value> = asked.flatten().cloned().collect();
                set_filters(&mut query, fields, &[Value::Array(values)]);
                plan.filter = Filter::parse(self.schema(), entity, &query.filters)?;
                // To know whose a row is; it is not shown for that.
                if !plan.levels[0].fetch.contains(field) {
                    plan.levels[0].fetch.push(field.clone());
                }
            }
            fields => {
                let others = std::mem::replace(&mut plan.filter, Filter::ALL);
                let tuples = one_of_tuples(entity, fields, asked.cloned().collect())?;
                plan.filter = Filter::And(vec![others, tuples]);
                for field in fields {
                    if !plan.levels[0].fetch.contains(field) {
                        plan.levels[0].fetch.push(field.clone());
                    }
                }
            }
        }
        let loaded = self.load_plan(&plan, &query, options).await?;

        let kinds = fields.iter().map(|name| {
            let field = entity.get_field(name);
            field.map_or(FieldType::Json, Field::kind)
        });
        let kinds: Vec<FieldType> = kinds.collect();
        let mut askers: HashMap<_, Vec<usize>> = HashMap::with_capacity(missing.len());
        for (asker, each) in missing.iter().enumerate() {
            let parts = kinds.iter().zip(&each.values);
            let identity = joined(parts.map(|(kind, value)| kind.identity(value)));
            askers.entry(identity).or_default().push(asker);
        }
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); missing.len()];
        for (position, row) in loaded.levels[0].rows.iter().enumerate() {
            let identity = entity.identity_in(fields, row);
            let whose = askers.get(&identity).ok_or_else(|| GraphError::Row {
                entity: entity.name().into(),
                field: fields.join(", "),
            })?;
            for &asker in whose {
                groups[asker].push(position as u32);
            }
        }
        let parts = loaded.split(&plan, groups);

        let tagged = options.cache.computes_tags();
        let mut results = HashMap::with_capacity(missing.len());
        for (each, loaded) in missing.iter().zip(parts) {
            set_filters(&mut query, fields, &each.values);
            plan.filter = Filter::parse(self.schema(), entity, &query.filters)?;
            results.insert(each.clone(), self.finish(&plan, loaded, tagged));
        }
        Ok(results)
    }
}

/// Filters for these values of these fields.
fn set_filters(query: &mut GraphQuery, fields: &[Name], values: &[Value]) {
    if query.filters.is_null() {
        query.filters = Value::Object(Map::new());
    }
    if let Value::Object(filters) = &mut query.filters {
        for (field, value) in fields.iter().zip(values) {
            filters.insert(field.to_string(), value.clone());
        }
    }
}
