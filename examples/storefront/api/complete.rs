//! From a cart to an order: in one transaction, once, and never more than there is.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use deadpool_postgres::Transaction;
use mcache::change::ChangeEvent;
use serde_json::{Value, json};

use super::auth::Shop;
use super::orders;
use super::view::{self, Cart, Totals, View};
use crate::changes;
use crate::error::ApiError;

/// `POST /store/carts/{id}/complete`: sent again, it answers with the same order.
pub async fn complete(shop: Shop, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let cart = view::cart(&shop.reads, &id).await?;
    if let Some(order) = &cart.order {
        return answer(&shop, &order.id).await;
    }
    let view = View::of(&shop, cart).await?;
    let shipping_name = ready(&view.cart, view.totals)?;

    let mut client = shop.store.database.get().await?;
    let work = client.transaction().await?;
    if !claim(&work, &view.cart).await? {
        work.rollback().await?;
        drop(client);
        // Either another request was faster with the same cart, or it is not the cart any more that was priced.
        return match view::cart(&shop.reads, &id).await?.order {
            Some(order) => answer(&shop, &order.id).await,
            None => Err(ApiError::Conflict(
                "the cart changed while it was being completed; try again".to_owned(),
            )),
        };
    }
    redeem(&work, &view.cart).await?;
    let events = reserve(&work, &view.cart).await?;
    let order = record(&work, &view.cart, view.totals, &shipping_name).await?;
    work.commit().await?;
    drop(client);

    // What the order changed for others is how many are left of what it took.
    shop.store.clear(&events).await;
    answer(&shop, &order).await
}

async fn answer(shop: &Shop, order: &str) -> Result<Json<Value>, ApiError> {
    Ok(Json(
        json!({ "type": "order", "order": orders::load(shop, order).await? }),
    ))
}

/// Whether the cart has all that an order needs; the name of its way of shipping.
fn ready(cart: &Cart, totals: Totals) -> Result<String, ApiError> {
    let lacks = |what: &str| ApiError::Invalid(format!("cart {} {what}", cart.id));
    if cart.items.is_empty() {
        return Err(lacks("is empty"));
    }
    if cart.email.is_none() {
        return Err(lacks("has no email"));
    }
    let method = cart
        .shipping_method
        .as_ref()
        .ok_or_else(|| lacks("has no shipping method"))?;
    let collection = cart
        .payment_collection
        .as_ref()
        .ok_or_else(|| lacks("has no payment collection"))?;
    let paid: i64 = collection
        .payments
        .iter()
        .map(|payment| payment.amount)
        .sum();
    if paid < totals.total {
        return Err(lacks("is not paid for"));
    }
    Ok(method.name.clone())
}

/// Makes the cart ours, if it still is as it was read. Another request that completes it waits here until we are done.
async fn claim(work: &Transaction<'_>, cart: &Cart) -> Result<bool, ApiError> {
    let statement = work
        .prepare_cached(
            "UPDATE cart SET completed_at = now() WHERE id = $1 AND version = $2 AND completed_at IS NULL",
        )
        .await?;
    Ok(work.execute(&statement, &[&cart.id, &cart.version]).await? == 1)
}

/// Uses the promotions up, those that can be. They are looked at here once more: a code may have been withdrawn or used
/// up since the cart was read, and the last use of a code must not be given away twice.
async fn redeem(work: &Transaction<'_>, cart: &Cart) -> Result<(), ApiError> {
    if cart.promotions.is_empty() {
        return Ok(());
    }
    let codes: Vec<&str> = cart
        .promotions
        .iter()
        .map(|applied| applied.code.as_str())
        .collect();
    let statement = work
        .prepare_cached(
            "WITH valid AS (
                SELECT code, usage_limit FROM promotion WHERE code = ANY ($1) AND is_active ORDER BY code),
             used AS (
                INSERT INTO promotion_use AS u (code, times)
                SELECT code, 1 FROM valid WHERE usage_limit > 0
                ON CONFLICT (code) DO UPDATE SET times = u.times + 1
                WHERE u.times < (SELECT usage_limit FROM valid WHERE valid.code = u.code)
                RETURNING u.code)
             SELECT count(*) FROM valid WHERE usage_limit IS NULL OR code IN (SELECT code FROM used)",
        )
        .await?;
    let redeemed: i64 = work.query_one(&statement, &[&codes]).await?.try_get(0)?;
    match redeemed == codes.len() as i64 {
        true => Ok(()),
        false => Err(ApiError::Conflict(
            "a promotion of this cart is not valid any more".to_owned(),
        )),
    }
}

/// Takes what was ordered out of stock, from as many locations as it takes.
async fn reserve(work: &Transaction<'_>, cart: &Cart) -> Result<Vec<ChangeEvent>, ApiError> {
    let mut wanted: BTreeMap<&str, i32> = BTreeMap::new();
    for item in &cart.items {
        *wanted.entry(&item.variant_id).or_default() += item.quantity;
    }
    let variants: Vec<&str> = wanted.keys().copied().collect();
    // Always in the same order: two orders of the same things wait for each other instead of for ever.
    let lock = work
        .prepare_cached(
            "SELECT l.id, l.variant_id, l.stocked - l.reserved FROM inventory_level AS l
             JOIN sales_channel_location AS s ON s.stock_location_id = l.location_id
             WHERE l.variant_id = ANY ($1) AND s.sales_channel_id = $2 ORDER BY l.id FOR UPDATE OF l",
        )
        .await?;
    let mut levels: Vec<String> = Vec::new();
    let mut taken: Vec<i32> = Vec::new();
    for row in work
        .query(&lock, &[&variants, &cart.sales_channel_id])
        .await?
    {
        let (level, variant, available): (String, String, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if let Some(missing) = wanted.get_mut(variant.as_str()) {
            let take = available.min(*missing);
            if take > 0 {
                *missing -= take;
                levels.push(level);
                taken.push(take);
            }
        }
    }
    if let Some((variant, _)) = wanted.iter().find(|(_, missing)| **missing > 0) {
        return Err(ApiError::Conflict(format!(
            "{variant:?} is not in stock in that quantity any more"
        )));
    }
    let take = work
        .prepare_cached(
            "UPDATE inventory_level AS l SET reserved = l.reserved + t.taken
             FROM unnest($1::text[], $2::integer[]) AS t (id, taken) WHERE l.id = t.id
             RETURNING l.id, l.variant_id, l.location_id",
        )
        .await?;
    let mut events = Vec::with_capacity(levels.len());
    for row in work.query(&take, &[&levels, &taken]).await? {
        let (id, variant, location): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let row = json!({ "id": id, "variant_id": variant, "location_id": location });
        events.push(changes::updated("InventoryLevel", row, &["reserved"]));
    }
    Ok(events)
}

/// Writes the order and its lines.
async fn record(
    work: &Transaction<'_>,
    cart: &Cart,
    totals: Totals,
    shipping_name: &str,
) -> Result<String, ApiError> {
    let statement = work
        .prepare_cached(
            r#"WITH made AS (
                INSERT INTO "order" (cart_id, region_id, customer_id, currency_code, email, shipping_address,
                    shipping_name, subtotal, discount, shipping, tax, total)
                SELECT id, region_id, customer_id, currency_code, email, shipping_address, $2, $3, $4, $5, $6, $7
                FROM cart WHERE id = $1 RETURNING id),
             lines AS (
                INSERT INTO order_item (order_id, variant_id, product_id, title, quantity, unit_price)
                SELECT made.id, i.variant_id, i.product_id, i.title, i.quantity, i.unit_price FROM made, line_item AS i
                WHERE i.cart_id = $1)
             SELECT id FROM made"#,
        )
        .await?;
    let row = work
        .query_one(
            &statement,
            &[
                &cart.id,
                &shipping_name,
                &totals.subtotal,
                &totals.discount,
                &totals.shipping,
                &totals.tax,
                &totals.total,
            ],
        )
        .await?;
    Ok(row.try_get(0)?)
}
