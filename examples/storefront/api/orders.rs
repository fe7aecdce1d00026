//! Orders: their own state from the database, what was bought from the catalogue.

use axum::Json;
use axum::extract::Path;
use futures_util::future::try_join3;
use mcache_graph::GraphQuery;
use serde_json::{Value, json};

use super::auth::Shop;
use super::lookup;
use super::variants::variants;
use crate::error::ApiError;

/// `GET /store/orders/{id}`
pub async fn one(shop: Shop, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "order": load(&shop, &id).await? })))
}

/// An order as it is shown.
pub async fn load(shop: &Shop, id: &str) -> Result<Value, ApiError> {
    let query = GraphQuery::new("order")
        .fields([
            "*",
            "items.variant_id",
            "items.product_id",
            "items.title",
            "items.quantity",
            "items.unit_price",
        ])
        .filters(json!({ "id": id }));
    let order: Option<Value> = shop.reads.sale(&query).await?;
    let mut order = order.ok_or_else(|| ApiError::not_found("order", id))?;
    let reads = &shop.reads;
    let text = |field: &str| order[field].as_str().unwrap_or_default();
    let items = order["items"].as_array().into_iter().flatten();
    let lines: Vec<(&str, &str)> = items
        .filter_map(|item| Some((item["variant_id"].as_str()?, item["product_id"].as_str()?)))
        .collect();
    let customer = async {
        match order["customer_id"].as_str() {
            Some(id) => lookup::customer(reads, "id", id).await,
            None => Ok(None),
        }
    };
    let (region, variants, customer) = try_join3(
        lookup::region(reads, text("region_id")),
        variants(reads, &lines),
        customer,
    )
    .await?;
    order["region"] = json!(region);
    order["customer"] = json!(customer);
    for item in order["items"].as_array_mut().into_iter().flatten() {
        let variant = variants
            .iter()
            .find(|variant| item["variant_id"] == variant.stored.id);
        item["variant"] = json!(variant);
    }
    Ok(order)
}
