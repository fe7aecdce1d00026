//! What a shop looks up: categories, regions, ways to ship.

use axum::Json;
use futures_util::future::try_join;
use mcache_graph::{Direction, GraphQuery, Pagination};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Shop;
use super::{lookup, view};
use crate::error::ApiError;
use crate::input::Params;

/// `GET /store/product-categories`: the tree.
pub async fn categories(shop: Shop) -> Result<Json<Value>, ApiError> {
    let query = GraphQuery::new("product_category")
        .fields(["id", "name", "handle", "rank"])
        .fields(
            ["id", "name", "handle", "rank", "is_active"]
                .map(|field| format!("category_children.{field}")),
        )
        .filters(json!({ "parent_category_id": null, "is_active": true }))
        .pagination(Pagination::new().order("rank", Direction::Asc));
    let found = shop.reads.catalogue(&query).await?;
    Ok(Json(json!({ "product_categories": found.data })))
}

/// `GET /store/regions`
pub async fn regions(shop: Shop) -> Result<Json<Value>, ApiError> {
    let query = GraphQuery::new("region").fields(lookup::REGION_FIELDS);
    let found = shop.reads.catalogue(&query).await?;
    Ok(Json(json!({ "regions": found.data })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShippingParams {
    cart_id: String,
}

/// `GET /store/shipping-options?cart_id=`
pub async fn shipping_options(
    shop: Shop,
    Params(params): Params<ShippingParams>,
) -> Result<Json<Value>, ApiError> {
    let cart = view::cart(&shop.reads, &params.cart_id).await?;
    let (region, options) = try_join(
        lookup::region(&shop.reads, &cart.region_id),
        lookup::shipping_options(&shop.reads, &cart.region_id),
    )
    .await?;
    let currency = region.currency_code;
    Ok(Json(
        json!({ "shipping_options": options, "currency_code": currency }),
    ))
}
