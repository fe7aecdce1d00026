//! Products: lists and single ones, with calculated prices and stock.
//!
//! A page is three reads rather than one: what the products are, what they cost in a currency, how many are there. They
//! change at different rates, and an order, which changes stock only, leaves the other two where they are.

use std::collections::HashMap;

use axum::Json;
use axum::extract::Path;
use futures_util::future::{try_join, try_join3};
use mcache::graph::{Direction, GraphQuery, GraphResult, Pagination};
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
    let query = GraphQuery::new("product")
        .fields(FIELDS)
        .filters(filters(&shop.channel, &params)?)
        .pagination(
            Pagination::new()
                .skip(offset as u64)
                .take(limit as u64)
                .order(field, direction),
        );
    let pricing = Pricing {
        region_id: params.region_id,
        currency_code: params.currency_code,
    };
    let page = priced(&shop, &query, &pricing).await?;
    let count = page.metadata.map_or(0, |metadata| metadata.count);
    Ok(Json(
        json!({ "products": page.data, "count": count, "offset": offset, "limit": limit }),
    ))
}

/// `GET /store/products/{id}`
pub async fn one(
    shop: Shop,
    Path(id): Path<String>,
    Params(pricing): Params<Pricing>,
) -> Result<Json<Value>, ApiError> {
    let query = GraphQuery::new("product").fields(FIELDS).filters(
        json!({ "id": id, "status": "published", "sales_channels": { "id": shop.channel } }),
    );
    let found = priced(&shop, &query, &pricing).await?;
    let product = found.data.into_iter().next();
    let product = product.ok_or_else(|| ApiError::not_found("product", id))?;
    Ok(Json(json!({ "product": product })))
}

fn filters(channel: &str, params: &ListParams) -> Result<Value, ApiError> {
    let mut filters = json!({ "status": "published", "sales_channels": { "id": channel } });
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

/// The products of a query, each variant with its price and its stock.
async fn priced(
    shop: &Shop,
    query: &GraphQuery,
    pricing: &Pricing,
) -> Result<GraphResult, ApiError> {
    let reads = &shop.reads;
    let (mut found, currency, locations) = try_join3(
        reads.catalogue(query),
        currency(reads, pricing),
        lookup::location_ids(reads, &shop.channel),
    )
    .await?;
    let products = found.data.iter();
    let ids: Vec<&str> = products
        .filter_map(|product| product["id"].as_str())
        .collect();
    let prices = async {
        match &currency {
            Some(currency) => variants::prices(reads, &ids, currency).await,
            None => Ok(HashMap::new()),
        }
    };
    let stock = variants::stock(reads, &ids, &locations);
    let (mut prices, mut stock) = try_join(prices, stock).await?;
    let products = found.data.iter_mut();
    let shown = products.filter_map(|product| product["variants"].as_array_mut());
    for variant in shown.flatten() {
        let id = variant["id"].as_str().unwrap_or_default().to_owned();
        variant["calculated_price"] = prices.remove(&id).unwrap_or(Value::Null);
        variant["inventory_quantity"] = stock
            .remove(&id)
            .filter(|n| !n.is_null())
            .unwrap_or(json!(0));
    }
    Ok(found)
}
