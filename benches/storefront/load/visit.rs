//! One visitor: looks around, and perhaps buys. Draws from a seed, so that with the cache and without it the same
//! requests are sent.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Client, Recorder, Reply};
use crate::BoxError;

/// What visitors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// How it is called.
    pub name: &'static str,
    /// How many visits of a hundred end in an order.
    pub orders_percent: u32,
    /// Pages looked at per visit: lists and products.
    pub pages: u32,
}

impl Mix {
    /// Most look, one in twenty buys: three requests in a hundred write.
    pub const BROWSE: Self = Self {
        name: "browse-heavy",
        orders_percent: 5,
        pages: 6,
    };
    /// Every visitor buys.
    pub const ORDER: Self = Self {
        name: "order-heavy",
        orders_percent: 100,
        pages: 2,
    };
    /// No visitor buys: everything is hot.
    pub const HOT: Self = Self {
        name: "hot reads",
        orders_percent: 0,
        pages: 4,
    };
}

/// The first products are the back office's playground while a load runs: visitors look at them, and do not order them,
/// so that only the back office changes them.
pub const RESERVED: u32 = 20;

const REGIONS: [&str; 3] = ["eu", "us", "uk"];
const COUNTRIES: [&str; 3] = ["de", "us", "gb"];

/// A visitor with a connection of its own.
pub struct Visitor {
    client: Client,
    recorder: Recorder,
    random: fastrand::Rng,
    products: u32,
}

impl Visitor {
    /// A visitor of a store with this many products.
    pub fn new(address: SocketAddr, recorder: Recorder, seed: u64, products: u32) -> Self {
        Self {
            client: Client::new(address),
            recorder,
            random: fastrand::Rng::with_seed(seed),
            products,
        }
    }

    /// One visit. What the store refuses ends it; what fails is recorded.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn visit(&mut self, mix: Mix) -> Result<(), BoxError> {
        let region = self.random.usize(..REGIONS.len());
        self.get("GET /store/regions", "/store/regions").await?;
        self.get("GET /store/product-categories", "/store/product-categories")
            .await?;
        let mut seen = Vec::new();
        for _ in 0..mix.pages {
            let list = self.list_path(region);
            self.get("GET /store/products", &list).await?;
            let product = self.product();
            seen.push(product);
            let path = format!(
                "/store/products/prod_{product}?region_id=reg_{}",
                REGIONS[region]
            );
            self.get("GET /store/products/{id}", &path).await?;
        }
        if self.random.u32(..100) < mix.orders_percent {
            self.order(region, &seen).await?;
        }
        Ok(())
    }

    /// The first pages of the whole list most of the time, a category or a collection otherwise.
    fn list_path(&mut self, region: usize) -> String {
        let region = REGIONS[region];
        match self.random.u32(..10) {
            0..6 => {
                let page = self.random.u32(..3) * 20;
                format!("/store/products?limit=20&offset={page}&region_id=reg_{region}")
            }
            6..8 => {
                let (department, aisle) = (1 + self.random.u32(..6), 1 + self.random.u32(..4));
                format!(
                    "/store/products?limit=20&category_id=pcat_{department}_{aisle}&region_id=reg_{region}"
                )
            }
            _ => {
                let collection = 1 + self.random.u32(..20);
                format!(
                    "/store/products?limit=20&collection_id=pcol_{collection}&region_id=reg_{region}"
                )
            }
        }
    }

    /// Some products sell better than others: the square of an even draw.
    fn product(&mut self) -> u32 {
        let draw = self.random.f64();
        let product = 1 + (draw * draw * f64::from(self.products)) as u32;
        // Every fiftieth is a draft.
        if product.is_multiple_of(50) {
            product - 1
        } else {
            product
        }
    }

    /// Orders one to three variants of what was looked at.
    async fn order(&mut self, region: usize, seen: &[u32]) -> Result<(), BoxError> {
        let seen: Vec<u32> = seen
            .iter()
            .copied()
            .filter(|&product| product > RESERVED)
            .collect();
        let email = format!("shopper{}@example.com", 1 + self.random.u32(..1_000));
        let new = json!({ "region_id": format!("reg_{}", REGIONS[region]), "email": email });
        let Some(cart) = self.post("POST /store/carts", "/store/carts", &new).await? else {
            return Ok(());
        };
        let cart = cart["cart"]["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/store/carts/{cart}");
        for _ in 0..1 + self.random.u32(..3) {
            let product = match seen.is_empty() {
                // What only the back office changes is not for sale: something else, then.
                true => self.product().max(RESERVED + 1),
                false => seen[self.random.usize(..seen.len())],
            };
            let variant = format!("variant_{product}_{}", 1 + self.random.u32(..11));
            let item = json!({ "variant_id": variant, "quantity": 1 });
            self.post(
                "POST /store/carts/{id}/line-items",
                &format!("{path}/line-items"),
                &item,
            )
            .await?;
        }
        self.get("GET /store/carts/{id}", &path).await?;
        let address = json!({ "shipping_address": {
            "first_name": "A", "last_name": "Shopper", "address_1": "1 High Street", "city": "Town",
            "postal_code": "12345", "country_code": COUNTRIES[region] } });
        self.post("POST /store/carts/{id}", &path, &address).await?;
        let codes = json!({ "promo_codes": [format!("SAVE{}", 1 + self.random.u32(..50))] });
        self.post(
            "POST /store/carts/{id}/promotions",
            &format!("{path}/promotions"),
            &codes,
        )
        .await?;
        self.get(
            "GET /store/shipping-options",
            &format!("/store/shipping-options?cart_id={cart}"),
        )
        .await?;
        let choice = json!({ "option_id": format!("so_{}_standard", REGIONS[region]) });
        self.post(
            "POST /store/carts/{id}/shipping-methods",
            &format!("{path}/shipping-methods"),
            &choice,
        )
        .await?;
        let owed = json!({ "cart_id": cart });
        let endpoint = "POST /store/payment-collections";
        let Some(owed) = self
            .post(endpoint, "/store/payment-collections", &owed)
            .await?
        else {
            return Ok(());
        };
        let collection = owed["payment_collection"]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let pay = format!("/store/payment-collections/{collection}/payments");
        let endpoint = "POST /store/payment-collections/{id}/payments";
        self.post(endpoint, &pay, &json!({ "provider_id": "pp_card" }))
            .await?;
        let complete = format!("{path}/complete");
        let Some(done) = self
            .post("POST /store/carts/{id}/complete", &complete, &json!({}))
            .await?
        else {
            return Ok(());
        };
        let order = done["order"]["id"].as_str().unwrap_or_default();
        self.get("GET /store/orders/{id}", &format!("/store/orders/{order}"))
            .await?;
        Ok(())
    }

    async fn get(&mut self, endpoint: &'static str, path: &str) -> Result<Option<Value>, BoxError> {
        let reply = self.client.get(path).await;
        // The visitor does not open what was browsed.
        self.note(endpoint, reply)
            .map(|reply| reply.map(|_| Value::Null))
    }

    async fn post(
        &mut self,
        endpoint: &'static str,
        path: &str,
        body: &Value,
    ) -> Result<Option<Value>, BoxError> {
        let reply = self.client.post(path, body).await;
        self.note(endpoint, reply)
            .map(|reply| reply.map(|reply| reply.json()))
    }

    /// The reply, if the store did what was asked.
    fn note(
        &mut self,
        endpoint: &'static str,
        reply: Result<Reply, BoxError>,
    ) -> Result<Option<Reply>, BoxError> {
        match reply {
            Ok(reply) => {
                self.recorder.record(endpoint, &reply);
                Ok(Some(reply).filter(|reply| reply.status.is_success()))
            }
            Err(error) => {
                self.recorder.record_failure(endpoint);
                Err(error)
            }
        }
    }
}
