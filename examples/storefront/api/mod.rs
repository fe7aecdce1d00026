//! The endpoints. One file per resource; here is only who listens where.

mod admin;
mod auth;
mod carts;
mod complete;
mod directory;
mod lookup;
mod orders;
mod payments;
mod products;
mod variants;
mod view;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use crate::error::ApiError;
use crate::input::{BodyLimit, has_nul};
use crate::reads::{Totals, tell_source};
use crate::store::Store;

/// Every endpoint over this store; `totals` counts where answers came from.
pub fn router(store: Arc<Store>, totals: Totals) -> Router {
    let body_bytes_max = store.config.body_bytes_max;
    let shop = Router::new()
        .route("/store/products", get(products::list))
        .route("/store/products/{id}", get(products::one))
        .route("/store/product-categories", get(directory::categories))
        .route("/store/regions", get(directory::regions))
        .route("/store/shipping-options", get(directory::shipping_options))
        .route("/store/carts", post(carts::create))
        .route("/store/carts/{id}", get(carts::one).post(carts::update))
        .route("/store/carts/{id}/line-items", post(carts::add_item))
        .route("/store/carts/{id}/promotions", post(carts::add_promotions))
        .route(
            "/store/carts/{id}/shipping-methods",
            post(carts::choose_shipping),
        )
        .route("/store/carts/{id}/complete", post(complete::complete))
        .route("/store/orders/{id}", get(orders::one))
        .route("/store/payment-collections", post(payments::create))
        .route(
            "/store/payment-collections/{id}/payments",
            post(payments::pay),
        );
    let back_office = Router::new()
        .route("/admin/products", post(admin::create_product))
        .route("/admin/products/{id}", post(admin::update_product))
        .route("/admin/variants/{id}/prices", post(admin::set_price))
        .route("/admin/variants/{id}/stock", post(admin::set_stock))
        .route("/admin/promotions", post(admin::create_promotion))
        .route("/admin/promotions/{id}", post(admin::update_promotion));
    shop.merge(back_office)
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(middleware::from_fn(refuse_nul))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(Extension(BodyLimit(body_bytes_max)))
        .layer(middleware::from_fn_with_state(totals, tell_source))
        .with_state(store)
}

async fn refuse_nul(request: Request, next: Next) -> Response {
    match has_nul(request.uri()) {
        true => ApiError::Invalid("an address must not contain the character U+0000".to_owned())
            .into_response(),
        false => next.run(request).await,
    }
}
