//! Small reads that several endpoints need: a region, a channel's locations, promotions, a customer.

use mcache_graph::GraphQuery;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::reads::Reads;

/// Where a cart is sold to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Region {
    pub id: String,
    pub name: String,
    pub currency_code: String,
    pub tax_percent: i64,
    pub countries: Vec<Value>,
    pub payment_providers: Vec<PaymentProvider>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PaymentProvider {
    pub id: String,
    pub is_enabled: bool,
}

pub const REGION_FIELDS: [&str; 8] = [
    "id",
    "countries.id",
    "name",
    "currency_code",
    "tax_percent",
    "countries.name",
    "payment_providers.id",
    "payment_providers.is_enabled",
];

/// A region that a request's body or query names.
pub async fn region(reads: &Reads, id: &str) -> Result<Region, ApiError> {
    let query = GraphQuery::new("region")
        .fields(REGION_FIELDS)
        .filters(json!({ "id": id }));
    let region = reads.first(&query).await?;
    region.ok_or_else(|| ApiError::Invalid(format!("region_id: there is no region {id:?}")))
}

/// The locations a channel ships from.
pub async fn location_ids(reads: &Reads, channel: &str) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    struct Channel {
        stock_locations: Vec<Location>,
    }
    #[derive(Deserialize)]
    struct Location {
        id: String,
    }
    let query = GraphQuery::new("sales_channel")
        .fields(["stock_locations.id"])
        .filters(json!({ "id": channel }));
    let channel: Option<Channel> = reads.first(&query).await?;
    let locations = channel
        .into_iter()
        .flat_map(|channel| channel.stock_locations);
    Ok(locations.map(|location| location.id).collect())
}

/// A discount.
#[derive(Debug, Deserialize)]
pub struct Promotion {
    pub code: String,
    pub percent: i64,
    pub is_active: bool,
}

/// The promotions with these codes; unknown codes are left out.
pub async fn promotions(reads: &Reads, codes: &[&str]) -> Result<Vec<Promotion>, ApiError> {
    let query = GraphQuery::new("promotion").fields(["code", "percent", "is_active"]);
    reads.all_of_each(&query, "code", codes).await
}

/// How something can be sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShippingOption {
    pub id: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub amount: i64,
}

/// The shipping options of a region.
pub async fn shipping_options(
    reads: &Reads,
    region: &str,
) -> Result<Vec<ShippingOption>, ApiError> {
    let query = GraphQuery::new("shipping_option")
        .fields(["id", "name", "type", "amount"])
        .filters(json!({ "region_id": region }));
    reads.all(&query).await
}

/// A customer, by any one field.
pub async fn customer(reads: &Reads, field: &str, value: &str) -> Result<Option<Value>, ApiError> {
    let query = GraphQuery::new("customer")
        .fields(["id", "email", "first_name", "last_name"])
        .filters(json!({ field: value }));
    reads.first(&query).await
}
