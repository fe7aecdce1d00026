//! Products: lists and single ones, with calculated prices and stock.
//!
//! A list is a list of ids. Of each product three things are kept, by themselves because they change at different
//! rates: what it is, what it costs in a currency, how many are there. All lists and the product's own page share them,
//! and an order, which changes stock only, leaves the rest where it is.

use std::collections::HashMap;

use axum::Json;
use axum::extract::Path;
use futures_util::future::{try_join, try_join3};
use mcache_graph::{Direction, GraphQuery, Pagination};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Shop;
use super::{lookup, variants};
use crate::error::ApiError;
use crate::input::{Params, within};
use crate::reads::Reads;

const FIELDS: [&str; 20] = [
    "id",
    "collection.id",
    "categories.id",
    "options.id",
    "variants.id",
    "title",
    "handle",
    "description",
    "thumbnail",
    "created_at",
    "collection.title",
    "collection.handle",
    "categories.name",
    "categories.handle",
    "images.url",
    "options.title",
    "options.values.value",
    "variants.title",
    "variants.sku",
    "variants.options.value",
];

const PAGE_DEFAULT: i64 = 20;
const PAGE_MAX: i64 = 100;
const OFFSET_MAX: i64 = 100_000;
const IDS_MAX: usize = 100;

/// How a list is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListParams {
    limit: Option<i64>,
    offset: Option<i64>,
    /// Part of the title.
    q: Option<String>,
    /// Several, separated by commas.
    id: Option<String>,
    handle: Option<String>,
    collection_id: Option<String>,
    category_id: Option<String>,
    /// `title` or `created_at`, with a minus in front for the other direction.
    order: Option<String>,
    region_id: Option<String>,
    currency_code: Option<String>,
}

/// In which currency: a region's, or one by name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pricing {
    region_id: Option<String>,
    currency_code: Option<String>,
}

/// `GET /store/products`
pub async fn list(shop: Shop, Params(params): Params<ListParams>) -> Result<Json<Value>, ApiError> {
    let limit = within("limit", params.limit.unwrap_or(PAGE_DEFAULT), 1..=PAGE_MAX)?;
    let offset = within("offset", params.offset.unwrap_or(0), 0..=OFFSET_MAX)?;
    let (field, direction) = order(params.order.as_deref())?;
    let page = Pagination::new().skip(offset as u64).take(limit as u64);
    let query = GraphQuery::new("product")
        .fields(["id"])
        .filters(filters(&shop.channel, &params)?)
        .pagination(page.order(field, direction));
    let pricing = Pricing {
        region_id: params.region_id,
        currency_code: params.currency_code,
    };
    let (page, terms) = try_join(shop.reads.catalogue(&query), Terms::of(&shop, &pricing)).await?;
    let ids: Vec<&str> = page
        .data
        .iter()
        .filter_map(|product| product["id"].as_str())
        .collect();
    let products = products(&shop, &ids, &terms).await?;
    let count = page.metadata.map_or(0, |metadata| metadata.count);
    Ok(Json(
        json!({ "products": products, "count": count, "offset": offset, "limit": limit }),
    ))
}

/// `GET /store/products/{id}`
pub async fn one(
    shop: Shop,
    Path(id): Path<String>,
    Params(pricing): Params<Pricing>,
) -> Result<Json<Value>, ApiError> {
    let terms = Terms::of(&shop, &pricing).await?;
    let products = products(&shop, &[&id], &terms).await?;
    let product = products.into_iter().next();
    let product = product.ok_or_else(|| ApiError::not_found("product", id))?;
    Ok(Json(json!({ "product": product })))
}

/// What a shop of this channel sells.
fn for_sale(channel: &str) -> Value {
    json!({ "status": "published", "sales_channels": { "id": channel } })
}

fn filters(channel: &str, params: &ListParams) -> Result<Value, ApiError> {
    let mut filters = for_sale(channel);
    if let Some(ids) = &params.id {
        let ids: Vec<&str> = ids.split(',').filter(|id| !id.is_empty()).collect();
        if ids.len() > IDS_MAX {
            return Err(ApiError::Invalid(format!("id: more than {IDS_MAX}")));
        }
        filters["id"] = json!(ids);
    }
    if let Some(handle) = &params.handle {
        filters["handle"] = json!(handle);
    }
    if let Some(collection) = &params.collection_id {
        filters["collection_id"] = json!(collection);
    }
    if let Some(category) = &params.category_id {
        filters["categories"] = json!({ "id": category });
    }
    if let Some(q) = params.q.as_deref().map(str::trim).filter(|q| !q.is_empty()) {
        // What a shopper types is text, not a pattern.
        let literal = q
            .replace('\\', r"\\")
            .replace('%', r"\%")
            .replace('_', r"\_");
        filters["title"] = json!({ "$ilike": format!("%{literal}%") });
    }
    Ok(filters)
}

fn order(given: Option<&str>) -> Result<(&str, Direction), ApiError> {
    let given = given.unwrap_or("-created_at");
    let (field, direction) = match given.strip_prefix('-') {
        Some(field) => (field, Direction::Desc),
        None => (given, Direction::Asc),
    };
    match field {
        "title" | "created_at" => Ok((field, direction)),
        _ => Err(ApiError::Invalid(format!(
            "order: {field:?} is neither title nor created_at"
        ))),
    }
}

/// In which currency prices are shown, and where stock is counted.
struct Terms {
    currency: Option<String>,
    location_ids: Vec<String>,
}

impl Terms {
    async fn of(shop: &Shop, pricing: &Pricing) -> Result<Self, ApiError> {
        let (currency, location_ids) = try_join(
            currency(&shop.reads, pricing),
            lookup::location_ids(&shop.reads, &shop.channel),
        )
        .await?;
        Ok(Self {
            currency,
            location_ids,
        })
    }
}

/// The currency to show prices in; none if it was not asked for.
async fn currency(reads: &Reads, pricing: &Pricing) -> Result<Option<String>, ApiError> {
    match (&pricing.region_id, &pricing.currency_code) {
        (Some(region), None) => Ok(Some(lookup::region(reads, region).await?.currency_code)),
        (None, Some(currency)) => {
            let query = GraphQuery::new("region")
                .fields(["id"])
                .filters(json!({ "currency_code": currency }));
            match reads.catalogue(&query).await?.data.is_empty() {
                true => Err(ApiError::Invalid(format!(
                    "currency_code: nothing is sold in {currency:?}"
                ))),
                false => Ok(Some(currency.clone())),
            }
        }
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(ApiError::Invalid(
            "give region_id or currency_code, not both".to_owned(),
        )),
    }
}

/// The products with these ids that are for sale, each variant with its price and its stock.
async fn products(shop: &Shop, ids: &[&str], terms: &Terms) -> Result<Vec<Value>, ApiError> {
    let reads = &shop.reads;
    let query = GraphQuery::new("product")
        .fields(FIELDS)
        .filters(for_sale(&shop.channel));
    let prices = async {
        match &terms.currency {
            Some(currency) => variants::prices(reads, ids, currency).await,
            None => Ok(HashMap::new()),
        }
    };
    let (mut products, mut prices, mut stock) = try_join3(
        reads.all_of_each::<Value>(&query, "id", ids),
        prices,
        variants::stock(reads, ids, &terms.location_ids),
    )
    .await?;
    let shown = products
        .iter_mut()
        .filter_map(|product| product["variants"].as_array_mut());
    for variant in shown.flatten() {
        let id = variant["id"].as_str().unwrap_or_default().to_owned();
        variant["calculated_price"] = prices.remove(&id).unwrap_or(Value::Null);
        variant["inventory_quantity"] = stock
            .remove(&id)
            .filter(|n| !n.is_null())
            .unwrap_or(json!(0));
    }
    Ok(products)
}
