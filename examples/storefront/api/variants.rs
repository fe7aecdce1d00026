//! Variants, their products, prices and stock: what lists, product pages and carts are made of, in ever new
//! combinations.
//!
//! Each variant, and each product's prices and stock, is kept once and shared: who adds a shirt to a cart finds the
//! price that the shirt's page was made with, and a cart that no other visitor has is put together from what is there.

use std::collections::HashMap;

use futures_util::future::try_join;
use mcache_graph::GraphQuery;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::reads::Reads;

/// A variant with what a cart shows of its product.
#[derive(Debug, Serialize)]
pub struct Variant {
    #[serde(flatten)]
    pub stored: StoredVariant,
    pub product: Option<Product>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StoredVariant {
    pub id: String,
    pub title: String,
    pub sku: String,
    pub product_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Product {
    pub id: String,
    pub title: String,
    pub handle: String,
    pub thumbnail: Option<String>,
    pub status: String,
}

/// The variants and products with these ids, pairs of the two, without those that do not exist.
pub async fn variants(reads: &Reads, lines: &[(&str, &str)]) -> Result<Vec<Variant>, ApiError> {
    let (ids, product_ids): (Vec<&str>, Vec<&str>) = lines.iter().copied().unzip();
    let (stored, products) = try_join(stored(reads, &ids), products(reads, product_ids)).await?;
    let with_product = |stored: StoredVariant| Variant {
        product: products.get(&stored.product_id).cloned(),
        stored,
    };
    Ok(stored.into_iter().map(with_product).collect())
}

/// The variant with this id.
pub async fn variant(reads: &Reads, id: &str) -> Result<Option<Variant>, ApiError> {
    let Some(stored) = stored(reads, &[id]).await?.pop() else {
        return Ok(None);
    };
    let mut products = products(reads, vec![&stored.product_id]).await?;
    let product = products.remove(&stored.product_id);
    Ok(Some(Variant { stored, product }))
}

/// What a variant costs in a currency; none if it is not sold in it.
pub async fn price(
    reads: &Reads,
    variant: &StoredVariant,
    currency: &str,
) -> Result<Option<i64>, ApiError> {
    let prices = prices(reads, &[&variant.product_id], currency).await?;
    let price = prices.get(&variant.id);
    Ok(price.and_then(|price| price["amount"].as_i64()))
}

async fn stored(reads: &Reads, ids: &[&str]) -> Result<Vec<StoredVariant>, ApiError> {
    let query = GraphQuery::new("product_variant").fields(["id", "title", "sku", "product_id"]);
    reads.all_of_each(&query, "id", ids).await
}

async fn products(reads: &Reads, mut ids: Vec<&str>) -> Result<HashMap<String, Product>, ApiError> {
    ids.sort_unstable();
    ids.dedup();
    let query = GraphQuery::new("product").fields(["id", "title", "handle", "thumbnail", "status"]);
    let products: Vec<Product> = reads.all_of_each(&query, "id", &ids).await?;
    let by_id = products
        .into_iter()
        .map(|product| (product.id.clone(), product));
    Ok(by_id.collect())
}

/// The prices in a currency of the variants of these products, by variant.
pub async fn prices(
    reads: &Reads,
    product_ids: &[&str],
    currency: &str,
) -> Result<HashMap<String, Value>, ApiError> {
    let context = json!({ "currency_code": currency });
    figures(reads, product_ids, "calculated_price", context).await
}

/// How many there are of the variants of these products in these locations, by variant.
pub async fn stock(
    reads: &Reads,
    product_ids: &[&str],
    locations: &[String],
) -> Result<HashMap<String, Value>, ApiError> {
    let context = json!({ "location_ids": locations });
    figures(reads, product_ids, "inventory_quantity", context).await
}

async fn figures(
    reads: &Reads,
    product_ids: &[&str],
    field: &str,
    context: Value,
) -> Result<HashMap<String, Value>, ApiError> {
    let query = GraphQuery::new("product_variant").fields(["id", field]);
    let query = query.context(context);
    let results = reads.each(&query, "product_id", product_ids).await?;
    let rows = results.iter().flat_map(|result| &result.data);
    let by_id = |row: &Value| Some((row["id"].as_str()?.to_owned(), row[field].clone()));
    Ok(rows.filter_map(by_id).collect())
}
