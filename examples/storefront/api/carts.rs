//! Carts: made, filled, addressed. Each write is one statement that also checks what it rests on, so that nothing is
//! ever half written and no two requests can slip past each other.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use futures_util::future::try_join;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Shop;
use super::view::{self, View};
use super::{lookup, variants};
use crate::error::ApiError;
use crate::input::{Body, email, within};

/// More of one variant than a person carries home.
const QUANTITY_MAX: i64 = 1_000;
const CODES_MAX: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCart {
    region_id: String,
    email: Option<String>,
    currency_code: Option<String>,
}

/// `POST /store/carts`
pub async fn create(
    shop: Shop,
    Body(new): Body<NewCart>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let email = new.email.as_deref().map(email).transpose()?;
    let region = lookup::region(&shop.reads, &new.region_id).await?;
    if let Some(currency) = new
        .currency_code
        .filter(|currency| *currency != region.currency_code)
    {
        return Err(ApiError::Invalid(format!(
            "currency_code: {} is sold to in {:?}, not in {currency:?}",
            region.name, region.currency_code
        )));
    }
    let customer = customer_id(&shop, email.as_deref()).await?;
    let client = shop.store.database.get().await?;
    let insert = client
        .prepare_cached(
            "INSERT INTO cart (region_id, sales_channel_id, customer_id, currency_code, email)
             VALUES ($1, $2, $3, $4, $5) RETURNING id",
        )
        .await?;
    let row = client
        .query_one(
            &insert,
            &[
                &region.id,
                &shop.channel,
                &customer,
                &region.currency_code,
                &email,
            ],
        )
        .await?;
    let id: String = row.try_get(0)?;
    drop(client);
    Ok((StatusCode::CREATED, answer(&shop, &id).await?))
}

/// `GET /store/carts/{id}`
pub async fn one(shop: Shop, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    answer(&shop, &id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CartUpdate {
    email: Option<String>,
    shipping_address: Option<Address>,
}

#[derive(Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    first_name: String,
    last_name: String,
    address_1: String,
    city: String,
    postal_code: String,
    country_code: String,
}

/// `POST /store/carts/{id}`
pub async fn update(
    shop: Shop,
    Path(id): Path<String>,
    Body(update): Body<CartUpdate>,
) -> Result<Json<Value>, ApiError> {
    let email = update.email.as_deref().map(email).transpose()?;
    let cart = view::open_cart(&shop.reads, &id).await?;
    if let Some(address) = &update.shipping_address {
        let region = lookup::region(&shop.reads, &cart.region_id).await?;
        if !region
            .countries
            .iter()
            .any(|country| country["id"] == address.country_code)
        {
            return Err(ApiError::Invalid(format!(
                "country_code: {:?} is not in {}",
                address.country_code, region.name
            )));
        }
    }
    let customer = customer_id(&shop, email.as_deref()).await?;
    let address = update
        .shipping_address
        .map(|address| json!(address).to_string());
    let client = shop.store.database.get().await?;
    let statement = client
        .prepare_cached(
            "UPDATE cart SET email = coalesce($2, email), customer_id = coalesce($3, customer_id),
                shipping_address = coalesce($4::text::jsonb, shipping_address), version = version + 1
             WHERE id = $1 AND completed_at IS NULL",
        )
        .await?;
    let changed = client
        .execute(&statement, &[&id, &email, &customer, &address])
        .await?;
    drop(client);
    still_open(changed, &id)?;
    answer(&shop, &id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    variant_id: String,
    quantity: i64,
}

/// `POST /store/carts/{id}/line-items`
pub async fn add_item(
    shop: Shop,
    Path(id): Path<String>,
    Body(new): Body<NewItem>,
) -> Result<Json<Value>, ApiError> {
    let quantity = within("quantity", new.quantity, 1..=QUANTITY_MAX)? as i32;
    let (cart, variant) = try_join(
        view::open_cart(&shop.reads, &id),
        variants::variant(&shop.reads, &new.variant_id),
    )
    .await?;
    let for_sale = variant.and_then(|variant| {
        let product = variant.product?;
        (product.status == "published").then_some((variant.stored, product))
    });
    let (variant, product) = for_sale.ok_or_else(|| {
        ApiError::Invalid(format!(
            "variant_id: nothing is sold as {:?}",
            new.variant_id
        ))
    })?;
    let price = variants::price(&shop.reads, &variant, &cart.currency_code).await?;
    let price = price.ok_or_else(|| {
        ApiError::Invalid(format!(
            "{:?} has no price in {:?}",
            variant.id, cart.currency_code
        ))
    })?;
    let client = shop.store.database.get().await?;
    // The stock counts that is there now, not the stock that is shown.
    let statement = client
        .prepare_cached(
            "WITH open AS (
                UPDATE cart SET version = version + 1 WHERE id = $1 AND completed_at IS NULL
                AND $4 + coalesce((SELECT quantity FROM line_item WHERE cart_id = $1 AND variant_id = $2), 0) <= (
                    SELECT coalesce(sum(l.stocked - l.reserved), 0) FROM inventory_level AS l
                    JOIN sales_channel_location AS s ON s.stock_location_id = l.location_id
                    WHERE l.variant_id = $2 AND s.sales_channel_id = cart.sales_channel_id)
                RETURNING id)
             INSERT INTO line_item (cart_id, variant_id, product_id, title, quantity, unit_price)
             SELECT open.id, $2, $6, $3, $4, $5 FROM open
             ON CONFLICT (cart_id, variant_id) DO UPDATE
                SET quantity = line_item.quantity + excluded.quantity, unit_price = excluded.unit_price",
        )
        .await?;
    let added = client
        .execute(
            &statement,
            &[
                &id,
                &variant.id,
                &product.title,
                &quantity,
                &price,
                &product.id,
            ],
        )
        .await?;
    drop(client);
    if added == 0 {
        view::open_cart(&shop.reads, &id).await?;
        return Err(ApiError::Conflict(format!(
            "{quantity} of {:?} are not in stock",
            new.variant_id
        )));
    }
    answer(&shop, &id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoCodes {
    promo_codes: Vec<String>,
}

/// `POST /store/carts/{id}/promotions`
pub async fn add_promotions(
    shop: Shop,
    Path(id): Path<String>,
    Body(given): Body<PromoCodes>,
) -> Result<Json<Value>, ApiError> {
    let codes: Vec<&str> = given.promo_codes.iter().map(String::as_str).collect();
    if codes.is_empty() || codes.len() > CODES_MAX {
        return Err(ApiError::Invalid(format!(
            "promo_codes: give from 1 to {CODES_MAX}"
        )));
    }
    view::open_cart(&shop.reads, &id).await?;
    let promotions = lookup::promotions(&shop.reads, &codes).await?;
    let is_valid = |code: &&str| {
        promotions
            .iter()
            .any(|found| found.code == **code && found.is_active)
    };
    if let Some(code) = codes.iter().find(|code| !is_valid(code)) {
        return Err(ApiError::Invalid(format!(
            "promo_codes: {code:?} is not valid"
        )));
    }
    let client = shop.store.database.get().await?;
    let statement = client
        .prepare_cached(
            "WITH open AS (
                UPDATE cart SET version = version + 1 WHERE id = $1 AND completed_at IS NULL RETURNING id),
             added AS (
                INSERT INTO cart_promotion (cart_id, code) SELECT DISTINCT open.id, code FROM open, unnest($2::text[]) AS code
                ON CONFLICT DO NOTHING)
             SELECT id FROM open",
        )
        .await?;
    let open = client.query(&statement, &[&id, &codes]).await?;
    drop(client);
    still_open(open.len() as u64, &id)?;
    answer(&shop, &id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShippingChoice {
    option_id: String,
}

/// `POST /store/carts/{id}/shipping-methods`
pub async fn choose_shipping(
    shop: Shop,
    Path(id): Path<String>,
    Body(choice): Body<ShippingChoice>,
) -> Result<Json<Value>, ApiError> {
    let cart = view::open_cart(&shop.reads, &id).await?;
    let options = lookup::shipping_options(&shop.reads, &cart.region_id).await?;
    let option = options
        .into_iter()
        .find(|option| option.id == choice.option_id);
    let option = option.ok_or_else(|| {
        ApiError::Invalid(format!(
            "option_id: {:?} does not ship to this cart's region",
            choice.option_id
        ))
    })?;
    let client = shop.store.database.get().await?;
    let statement = client
        .prepare_cached(
            "WITH open AS (
                UPDATE cart SET version = version + 1 WHERE id = $1 AND completed_at IS NULL RETURNING id)
             INSERT INTO cart_shipping_method (cart_id, shipping_option_id, name, amount)
             SELECT open.id, $2, $3, $4 FROM open
             ON CONFLICT (cart_id) DO UPDATE SET
                shipping_option_id = excluded.shipping_option_id, name = excluded.name, amount = excluded.amount",
        )
        .await?;
    let chosen = client
        .execute(&statement, &[&id, &option.id, &option.name, &option.amount])
        .await?;
    drop(client);
    still_open(chosen, &id)?;
    answer(&shop, &id).await
}

async fn answer(shop: &Shop, id: &str) -> Result<Json<Value>, ApiError> {
    let view = View::load(shop, id).await?;
    Ok(Json(json!({ "cart": view.into_json() })))
}

/// The customer with this address, if there is one.
async fn customer_id(shop: &Shop, email: Option<&str>) -> Result<Option<String>, ApiError> {
    let Some(email) = email else { return Ok(None) };
    let customer = lookup::customer(&shop.reads, "email", email).await?;
    Ok(customer.and_then(|customer| Some(customer["id"].as_str()?.to_owned())))
}

/// Another request may have completed the cart since it was read.
fn still_open(changed: u64, id: &str) -> Result<(), ApiError> {
    match changed {
        0 => Err(ApiError::Conflict(format!(
            "cart {id} was completed meanwhile"
        ))),
        _ => Ok(()),
    }
}
