//! The back office: changes of what is sold. Each clears what it changed before it answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mcache::change::ChangeEvent;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::auth::BackOffice;
use crate::changes::{created, updated};
use crate::error::ApiError;
use crate::input::{Body, text, within};
use crate::store::Store;

type Shared = State<Arc<Store>>;

const AMOUNT_MAX: i64 = 1_000_000_000;
const STOCK_MAX: i64 = 10_000_000;
const VARIANTS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProduct {
    title: String,
    handle: String,
    #[serde(default)]
    published: bool,
    collection_id: Option<String>,
    sales_channel_id: String,
    variants: Vec<NewVariant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVariant {
    title: String,
    sku: String,
    prices: Vec<SetPrice>,
}

/// `POST /admin/products`
pub async fn create_product(
    _: BackOffice,
    State(store): Shared,
    Body(new): Body<NewProduct>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (title, handle) = (
        text("title", &new.title, 200)?,
        text("handle", &new.handle, 200)?,
    );
    if new.variants.is_empty() || new.variants.len() > VARIANTS_MAX {
        return Err(ApiError::Invalid(format!(
            "variants: give from 1 to {VARIANTS_MAX}"
        )));
    }
    let mut client = store.database.get().await?;
    let work = client.transaction().await?;
    let status = if new.published { "published" } else { "draft" };
    let row = work
        .query_one(
            "INSERT INTO product (title, handle, status, collection_id) VALUES ($1, $2, $3, $4)
             RETURNING id, handle, status, collection_id",
            &[&title, &handle, &status, &new.collection_id],
        )
        .await?;
    let product = product_row(&row)?;
    let id = product["id"].as_str().unwrap_or_default().to_owned();
    let channel = new.sales_channel_id;
    work.execute(
        "INSERT INTO product_in_channel VALUES ($1, $2)",
        &[&id, &channel],
    )
    .await?;
    let link =
        json!({ "id": format!("{id}|{channel}"), "product_id": id, "sales_channel_id": channel });
    let mut events = vec![
        created("Product", product),
        created("ProductInChannel", link),
    ];
    for (rank, variant) in (1_i32..).zip(&new.variants) {
        let (title, sku) = (
            text("title", &variant.title, 200)?,
            text("sku", &variant.sku, 100)?,
        );
        let row = work
            .query_one(
                "INSERT INTO product_variant (product_id, title, sku, rank) VALUES ($1, $2, $3, $4) RETURNING id",
                &[&id, &title, &sku, &rank],
            )
            .await?;
        let variant_id: String = row.try_get(0)?;
        events.push(created(
            "ProductVariant",
            json!({ "id": variant_id, "product_id": id }),
        ));
        for price in &variant.prices {
            let amount = within("amount", price.amount, 0..=AMOUNT_MAX)?;
            let row = work
                .query_one(
                    "INSERT INTO price (variant_id, currency_code, amount) VALUES ($1, $2, $3) RETURNING id",
                    &[&variant_id, &price.currency_code, &amount],
                )
                .await?;
            let price_id: String = row.try_get(0)?;
            events.push(created(
                "Price",
                json!({ "id": price_id, "variant_id": variant_id }),
            ));
        }
    }
    work.commit().await?;
    store.clear(&events).await;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "product": { "id": id } })),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductUpdate {
    title: Option<String>,
    description: Option<String>,
    published: Option<bool>,
}

/// `POST /admin/products/{id}`
pub async fn update_product(
    _: BackOffice,
    State(store): Shared,
    Path(id): Path<String>,
    Body(update): Body<ProductUpdate>,
) -> Result<Json<Value>, ApiError> {
    let title = update
        .title
        .map(|title| text("title", &title, 200))
        .transpose()?;
    let status = update
        .published
        .map(|published| if published { "published" } else { "draft" });
    let changed: Vec<&str> = [
        ("title", title.is_some()),
        ("description", update.description.is_some()),
        ("status", status.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, given)| given.then_some(field))
    .collect();
    if changed.is_empty() {
        return Err(ApiError::Invalid(
            "nothing to change: give title, description or published".to_owned(),
        ));
    }
    let client = store.database.get().await?;
    let row = client
        .query_opt(
            "UPDATE product SET title = coalesce($2, title), description = coalesce($3, description),
                status = coalesce($4, status)
             WHERE id = $1 RETURNING id, handle, status, collection_id",
            &[&id, &title, &update.description, &status],
        )
        .await?;
    let row = row.ok_or_else(|| ApiError::not_found("product", id))?;
    finish(
        &store,
        "product",
        updated("Product", product_row(&row)?, &changed),
    )
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPrice {
    currency_code: String,
    amount: i64,
}

/// `POST /admin/variants/{id}/prices`
pub async fn set_price(
    _: BackOffice,
    State(store): Shared,
    Path(id): Path<String>,
    Body(price): Body<SetPrice>,
) -> Result<Json<Value>, ApiError> {
    let amount = within("amount", price.amount, 0..=AMOUNT_MAX)?;
    let client = store.database.get().await?;
    // A price that a variant does not have yet needs a currency in which some region pays.
    let row = client
        .query_opt(
            "INSERT INTO price (variant_id, currency_code, amount)
             SELECT v.id, r.currency_code, $3 FROM product_variant AS v, region AS r
             WHERE v.id = $1 AND r.currency_code = $2 LIMIT 1
             ON CONFLICT (variant_id, currency_code) DO UPDATE SET amount = excluded.amount
             RETURNING id, variant_id",
            &[&id, &price.currency_code, &amount],
        )
        .await?;
    let Some(row) = row else {
        return Err(ApiError::Invalid(format!(
            "there is no variant {id:?}, or nothing is sold in {:?}",
            price.currency_code
        )));
    };
    let (price_id, variant_id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    // It may have been there or not: what is not said about the row counts as changed.
    let row = json!({ "id": price_id, "variant_id": variant_id });
    let event = updated("Price", row.clone(), &["currency_code", "amount"]);
    store.clear(&[event, created("Price", row.clone())]).await;
    Ok(Json(json!({ "price": row })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetStock {
    location_id: String,
    stocked: i64,
}

/// `POST /admin/variants/{id}/stock`
pub async fn set_stock(
    _: BackOffice,
    State(store): Shared,
    Path(id): Path<String>,
    Body(stock): Body<SetStock>,
) -> Result<Json<Value>, ApiError> {
    let stocked = within("stocked", stock.stocked, 0..=STOCK_MAX)? as i32;
    let client = store.database.get().await?;
    let row = client
        .query_opt(
            "UPDATE inventory_level SET stocked = $3 WHERE variant_id = $1 AND location_id = $2
             RETURNING id, variant_id, location_id",
            &[&id, &stock.location_id, &stocked],
        )
        .await?;
    let row =
        row.ok_or_else(|| ApiError::not_found("stock of the variant at this location", id))?;
    let (level, variant, location): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let row = json!({ "id": level, "variant_id": variant, "location_id": location });
    finish(
        &store,
        "inventory_level",
        updated("InventoryLevel", row, &["stocked"]),
    )
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPromotion {
    code: String,
    percent: i64,
    usage_limit: Option<i32>,
}

/// `POST /admin/promotions`
pub async fn create_promotion(
    _: BackOffice,
    State(store): Shared,
    Body(new): Body<NewPromotion>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let code = text("code", &new.code, 50)?;
    let percent = within("percent", new.percent, 1..=100)? as i32;
    let client = store.database.get().await?;
    let row = client
        .query_one(
            "INSERT INTO promotion (code, percent, usage_limit) VALUES ($1, $2, $3) RETURNING id, code",
            &[&code, &percent, &new.usage_limit],
        )
        .await?;
    let event = created("Promotion", promotion_row(&row)?);
    Ok((
        StatusCode::CREATED,
        finish(&store, "promotion", event).await?,
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromotionUpdate {
    is_active: bool,
}

/// `POST /admin/promotions/{id}`
pub async fn update_promotion(
    _: BackOffice,
    State(store): Shared,
    Path(id): Path<String>,
    Body(update): Body<PromotionUpdate>,
) -> Result<Json<Value>, ApiError> {
    let client = store.database.get().await?;
    let row = client
        .query_opt(
            "UPDATE promotion SET is_active = $2 WHERE id = $1 RETURNING id, code",
            &[&id, &update.is_active],
        )
        .await?;
    let row = row.ok_or_else(|| ApiError::not_found("promotion", id))?;
    finish(
        &store,
        "promotion",
        updated("Promotion", promotion_row(&row)?, &["is_active"]),
    )
    .await
}

/// Clears what a change of one row changed, and answers with the row's id.
async fn finish(store: &Store, name: &str, event: ChangeEvent) -> Result<Json<Value>, ApiError> {
    let id = event.ids.first().cloned();
    store.clear(&[event]).await;
    Ok(Json(json!({ name: { "id": id } })))
}

/// The keys of a product: what lists are filtered by.
fn product_row(row: &Row) -> Result<Value, ApiError> {
    let (id, handle): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (status, collection_id): (String, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
    Ok(json!({ "id": id, "handle": handle, "status": status, "collection_id": collection_id }))
}

fn promotion_row(row: &Row) -> Result<Value, ApiError> {
    let (id, code): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(json!({ "id": id, "code": code }))
}
