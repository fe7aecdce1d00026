//! A cart as it is shown: its own state from the database, what it is about from the catalogue.

use futures_util::future::try_join4;
use mcache_graph::GraphQuery;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::Shop;
use super::lookup::{self, Promotion, Region};
use super::variants::{Variant, variants};
use crate::error::ApiError;
use crate::reads::Reads;

/// A cart's own state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cart {
    pub id: String,
    pub region_id: String,
    pub sales_channel_id: String,
    pub customer_id: Option<String>,
    pub currency_code: String,
    pub email: Option<String>,
    pub shipping_address: Option<Value>,
    pub version: i32,
    pub completed_at: Option<String>,
    pub created_at: String,
    pub items: Vec<Item>,
    pub promotions: Vec<AppliedPromotion>,
    pub shipping_method: Option<ShippingMethod>,
    pub payment_collection: Option<PaymentCollection>,
    pub order: Option<OrderId>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Item {
    pub id: String,
    pub variant_id: String,
    pub product_id: String,
    pub title: String,
    pub quantity: i32,
    pub unit_price: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AppliedPromotion {
    pub code: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ShippingMethod {
    pub shipping_option_id: String,
    pub name: String,
    pub amount: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PaymentCollection {
    pub id: String,
    pub amount: i64,
    pub payments: Vec<Payment>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Payment {
    pub id: String,
    pub provider_id: String,
    pub amount: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct OrderId {
    pub id: String,
}

/// What a cart costs, in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub subtotal: i64,
    pub discount: i64,
    pub shipping: i64,
    pub tax: i64,
    pub total: i64,
}

/// A cart with everything it refers to.
pub struct View {
    pub cart: Cart,
    pub totals: Totals,
    region: Region,
    variants: Vec<Variant>,
    customer: Option<Value>,
}

const CART_FIELDS: [&str; 17] = [
    "*",
    "items.variant_id",
    "items.product_id",
    "items.title",
    "items.quantity",
    "items.unit_price",
    "promotions.code",
    "shipping_method.shipping_option_id",
    "shipping_method.name",
    "shipping_method.amount",
    "payment_collection.id",
    "payment_collection.amount",
    "payment_collection.payments.id",
    "payment_collection.payments.provider_id",
    "payment_collection.payments.amount",
    "order.id",
    "items.id",
];

/// A cart that a request names, as it is now.
pub async fn cart(reads: &Reads, id: &str) -> Result<Cart, ApiError> {
    let query = GraphQuery::new("cart")
        .fields(CART_FIELDS)
        .filters(json!({ "id": id }));
    let cart = reads.sale(&query).await?;
    cart.ok_or_else(|| ApiError::not_found("cart", id))
}

/// A cart that may still be changed.
pub async fn open_cart(reads: &Reads, id: &str) -> Result<Cart, ApiError> {
    let cart = cart(reads, id).await?;
    match cart.completed_at {
        None => Ok(cart),
        Some(_) => Err(ApiError::Conflict(format!("cart {id} is completed"))),
    }
}

impl View {
    /// The cart as it is now, with what it refers to.
    pub async fn load(shop: &Shop, id: &str) -> Result<Self, ApiError> {
        Self::of(shop, cart(&shop.reads, id).await?).await
    }

    /// What a cart refers to.
    pub async fn of(shop: &Shop, cart: Cart) -> Result<Self, ApiError> {
        let reads = &shop.reads;
        let items = cart.items.iter();
        let lines: Vec<(&str, &str)> = items
            .map(|item| (&*item.variant_id, &*item.product_id))
            .collect();
        let codes: Vec<&str> = cart
            .promotions
            .iter()
            .map(|applied| applied.code.as_str())
            .collect();
        let customer = async {
            match &cart.customer_id {
                Some(id) => lookup::customer(reads, "id", id).await,
                None => Ok(None),
            }
        };
        let (region, variants, promotions, customer) = try_join4(
            lookup::region(reads, &cart.region_id),
            variants(reads, &lines),
            lookup::promotions(reads, &codes),
            customer,
        )
        .await?;
        let totals = totals(&cart, &promotions, region.tax_percent);
        Ok(Self {
            cart,
            totals,
            region,
            variants,
            customer,
        })
    }

    /// What the caller gets.
    pub fn into_json(self) -> Value {
        let variants = &self.variants;
        let items: Vec<Value> = self
            .cart
            .items
            .iter()
            .map(|item| item_json(item, variants))
            .collect();
        let mut shown = json!(self.cart);
        shown["items"] = Value::Array(items);
        shown["region"] = json!(self.region);
        shown["customer"] = json!(self.customer);
        shown["totals"] = json!(self.totals);
        shown
    }
}

/// A line with its variant and product.
pub fn item_json(item: &Item, variants: &[Variant]) -> Value {
    let mut shown = json!(item);
    shown["variant"] = json!(
        variants
            .iter()
            .find(|variant| variant.stored.id == item.variant_id)
    );
    shown
}

/// What a cart costs. The best promotion counts, not their sum; tax is on what is paid for the goods and their way.
fn totals(cart: &Cart, promotions: &[Promotion], tax_percent: i64) -> Totals {
    let subtotal = cart
        .items
        .iter()
        .map(|item| item.unit_price * i64::from(item.quantity))
        .sum::<i64>();
    let active = promotions.iter().filter(|promotion| promotion.is_active);
    let percent = active.map(|promotion| promotion.percent).max().unwrap_or(0);
    let discount = subtotal * percent / 100;
    let shipping = cart
        .shipping_method
        .as_ref()
        .map_or(0, |method| method.amount);
    let taxed = subtotal - discount + shipping;
    let tax = taxed * tax_percent / 100;
    Totals {
        subtotal,
        discount,
        shipping,
        tax,
        total: taxed + tax,
    }
}
