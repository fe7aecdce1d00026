//! Payment collections: what a cart owes, and how it is paid. The provider is a stand-in that says yes at once.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use mcache_graph::GraphQuery;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Shop;
use super::lookup;
use super::view::{self, View};
use crate::error::ApiError;
use crate::input::Body;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCollection {
    cart_id: String,
}

/// `POST /store/payment-collections`
pub async fn create(
    shop: Shop,
    Body(new): Body<NewCollection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let cart = view::open_cart(&shop.reads, &new.cart_id).await?;
    let view = View::of(&shop, cart).await?;
    if view.cart.items.is_empty() {
        return Err(ApiError::Invalid(format!("cart {} is empty", new.cart_id)));
    }
    let client = shop.store.database.get().await?;
    let statement = client
        .prepare_cached(
            "INSERT INTO payment_collection (cart_id, currency_code, amount) VALUES ($1, $2, $3)
             ON CONFLICT (cart_id) DO UPDATE SET amount = excluded.amount RETURNING id",
        )
        .await?;
    let total = view.totals.total;
    let row = client
        .query_one(
            &statement,
            &[&view.cart.id, &view.cart.currency_code, &total],
        )
        .await?;
    let id: String = row.try_get(0)?;
    let shown = json!({ "id": id, "cart_id": view.cart.id, "currency_code": view.cart.currency_code, "amount": total });
    Ok((
        StatusCode::CREATED,
        Json(json!({ "payment_collection": shown })),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    provider_id: String,
}

#[derive(Deserialize)]
struct Collection {
    amount: i64,
    currency_code: String,
    cart: Option<CartRegion>,
}

#[derive(Deserialize)]
struct CartRegion {
    region_id: String,
    completed_at: Option<String>,
}

/// `POST /store/payment-collections/{id}/payments`: once per provider, however often it is sent.
pub async fn pay(
    shop: Shop,
    Path(id): Path<String>,
    Body(new): Body<NewPayment>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let query = GraphQuery::new("payment_collection")
        .fields([
            "amount",
            "currency_code",
            "cart.region_id",
            "cart.completed_at",
        ])
        .filters(json!({ "id": id }));
    let collection: Option<Collection> = shop.reads.sale(&query).await?;
    let collection = collection.ok_or_else(|| ApiError::not_found("payment collection", &id))?;
    let cart = collection
        .cart
        .ok_or_else(|| ApiError::not_found("payment collection", &id))?;
    if cart.completed_at.is_some() {
        return Err(ApiError::Conflict("this cart is completed".to_owned()));
    }
    let region = lookup::region(&shop.reads, &cart.region_id).await?;
    let mut providers = region.payment_providers.iter();
    if !providers.any(|provider| provider.id == new.provider_id && provider.is_enabled) {
        return Err(ApiError::Invalid(format!(
            "provider_id: {:?} is not offered in {}",
            new.provider_id, region.name
        )));
    }
    let client = shop.store.database.get().await?;
    let statement = client
        .prepare_cached(
            "INSERT INTO payment (payment_collection_id, provider_id, amount) VALUES ($1, $2, $3)
             ON CONFLICT (payment_collection_id, provider_id) DO UPDATE SET amount = excluded.amount RETURNING id",
        )
        .await?;
    let row = client
        .query_one(&statement, &[&id, &new.provider_id, &collection.amount])
        .await?;
    let payment: String = row.try_get(0)?;
    let payment =
        json!({ "id": payment, "provider_id": new.provider_id, "amount": collection.amount });
    let shown = json!({ "id": id, "amount": collection.amount, "currency_code": collection.currency_code, "payments": [payment] });
    Ok((
        StatusCode::CREATED,
        Json(json!({ "payment_collection": shown })),
    ))
}
