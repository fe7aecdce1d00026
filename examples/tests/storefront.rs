//! The storefront: what a shopper and a back office may rely on while everything they read is cached.

mod page;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use harness::{KillOnDrop, wait};
use page::{browse, figure, requests, table};
use serde_json::{Value, json};
use storefront::config::Config;
use storefront::live::Live;
use storefront::serve::Server;
use storefront::servers::Servers;
use storefront_load::Client;

/// Enough for every page there is, seeded in a second.
const PRODUCTS: u32 = 60;

struct Shop {
    servers: Arc<Servers>,
    config: Config,
    server: Server,
    client: Client,
}

impl Shop {
    async fn open(stock: u32) -> Self {
        Self::open_on(Servers::start, stock).await
    }

    /// With a Redis that has a feed for near caches.
    async fn with_feed(stock: u32) -> Self {
        Self::open_on(Servers::with_feed, stock).await
    }

    async fn open_on(start: fn() -> Servers, stock: u32) -> Self {
        let servers = Arc::new(tokio::task::spawn_blocking(start).await.unwrap());
        let config = servers.config(Config {
            listen: "127.0.0.1:0".to_owned(),
            caching: Some(true),
            products: PRODUCTS,
            stock,
            body_bytes_max: 4_096,
            ..Config::default()
        });
        servers.seed(&config).await.unwrap();
        let server = Server::start(config.clone()).await.unwrap();
        // Its invalidator is new to the database, so it begins with clearing everything, beside the first requests.
        let mut redis = servers.redis().session();
        wait::until("the invalidator has begun", || {
            redis.stat("invalidations") > 0
        });
        let client = Client::new(server.address);
        Self {
            servers,
            config,
            server,
            client,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.server.address)
    }

    /// Asks until the answer is a hit: it is stored after it was given.
    async fn hit(&mut self, path: &str) -> Value {
        for _ in 0..1_000 {
            let reply = self.client.get(path).await.unwrap();
            assert_eq!(reply.status, 200, "{path}: {}", reply.json());
            if reply.cache == "hit" {
                return reply.json();
            }
        }
        panic!("{path} is never a hit");
    }
}

/// The path of a new cart with everything an order of one line needs.
async fn ready_cart(client: &mut Client, variant: &str, quantity: u32) -> String {
    let new = json!({ "region_id": "reg_eu", "email": "shopper1@example.com" });
    let cart = client.post("/store/carts", &new).await.unwrap();
    assert_eq!(cart.status, 201, "{}", cart.json());
    let id = cart.json()["cart"]["id"].as_str().unwrap().to_owned();
    let path = format!("/store/carts/{id}");
    let item = json!({ "variant_id": variant, "quantity": quantity });
    let steps = [
        (format!("{path}/line-items"), item),
        (
            format!("{path}/shipping-methods"),
            json!({ "option_id": "so_eu_standard" }),
        ),
        (
            "/store/payment-collections".to_owned(),
            json!({ "cart_id": id }),
        ),
    ];
    let mut last = Value::Null;
    for (path, body) in steps {
        let reply = client.post(&path, &body).await.unwrap();
        assert!(reply.status.is_success(), "{path}: {}", reply.json());
        last = reply.json();
    }
    let collection = last["payment_collection"]["id"].as_str().unwrap();
    let pay = format!("/store/payment-collections/{collection}/payments");
    let paid = client
        .post(&pay, &json!({ "provider_id": "pp_card" }))
        .await
        .unwrap();
    assert!(paid.status.is_success(), "{}", paid.json());
    path
}

/// The stock of a variant as a product's page shows it.
fn stock_shown(page: &Value, variant: &str) -> i64 {
    let variants = page["product"]["variants"].as_array().unwrap();
    let shown = variants
        .iter()
        .find(|shown| shown["id"] == variant)
        .unwrap();
    shown["inventory_quantity"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_made_once_and_clears_the_stock_it_took_and_no_other() {
    let mut shop = Shop::open(100).await;
    let (ordered, other) = (
        "/store/products/prod_3?region_id=reg_eu",
        "/store/products/prod_4?region_id=reg_eu",
    );
    assert_eq!(stock_shown(&shop.hit(ordered).await, "variant_3_1"), 200);
    shop.hit(other).await;

    let path = ready_cart(&mut shop.client, "variant_3_1", 150).await;
    let totals = shop.client.get(&path).await.unwrap().json()["cart"]["totals"].clone();
    let price = 900 + 3 * 37 + 50;
    assert_eq!(totals["subtotal"], 150 * price);
    assert_eq!(totals["total"], (150 * price + 490) * 120 / 100);

    let complete = format!("{path}/complete");
    let done = shop.client.post(&complete, &json!({})).await.unwrap();
    assert_eq!(done.status, 200, "{}", done.json());
    let again = shop.client.post(&complete, &json!({})).await.unwrap();
    assert_eq!(done.json()["order"]["id"], again.json()["order"]["id"]);
    let order = format!(
        "/store/orders/{}",
        done.json()["order"]["id"].as_str().unwrap()
    );
    let order = shop.client.get(&order).await.unwrap().json();
    assert_eq!(
        order["order"]["items"][0]["variant"]["product"]["handle"],
        "product-3"
    );
    assert_eq!(
        shop.servers.postgres.psql(
            "SELECT (SELECT count(*) FROM \"order\"), (SELECT sum(reserved) FROM inventory_level)"
        ),
        "1|150"
    );

    let page = shop.client.get(ordered).await.unwrap();
    assert_eq!(
        (
            page.cache.as_str(),
            stock_shown(&page.json(), "variant_3_1")
        ),
        ("miss", 50)
    );
    assert_eq!(
        shop.client.get(other).await.unwrap().cache,
        "hit",
        "nothing of it was ordered"
    );

    // A completed cart stays as it is.
    let item = json!({ "variant_id": "variant_3_2", "quantity": 1 });
    let late = shop
        .client
        .post(&format!("{path}/line-items"), &item)
        .await
        .unwrap();
    assert_eq!(late.status, 409);
    shop.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_oversold_however_many_buy_at_once() {
    let mut shop = Shop::open(5).await;
    // Ten pieces at two locations; twelve shoppers want one each, and each cart was filled while there were enough.
    let mut carts = Vec::new();
    for _ in 0..12 {
        carts.push(ready_cart(&mut shop.client, "variant_7_1", 1).await);
    }
    let mut buyers = tokio::task::JoinSet::new();
    for path in carts {
        // Each cart is completed twice at once.
        for _ in 0..2 {
            let (mut client, path) = (shop.client(), format!("{path}/complete"));
            buyers.spawn(
                async move { (path.clone(), client.post(&path, &json!({})).await.unwrap()) },
            );
        }
    }
    let mut orders = std::collections::BTreeMap::new();
    for (path, reply) in buyers.join_all().await {
        let outcome = match reply.status.as_u16() {
            200 => reply.json()["order"]["id"].as_str().unwrap().to_owned(),
            409 => "refused".to_owned(),
            status => panic!("{status}: {}", reply.json()),
        };
        assert_eq!(
            orders.entry(path).or_insert_with(|| outcome.clone()),
            &outcome
        );
    }
    assert_eq!(
        orders
            .values()
            .filter(|outcome| *outcome != "refused")
            .count(),
        10
    );
    let left =
        "SELECT sum(stocked - reserved) FROM inventory_level WHERE variant_id = 'variant_7_1'";
    assert_eq!(shop.servers.postgres.psql(left), "0");
    assert_eq!(
        shop.servers.postgres.psql("SELECT count(*) FROM \"order\""),
        "10"
    );
    shop.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_what_is_wrong_and_writes_nothing() {
    let mut shop = Shop::open(100).await;
    let cart = shop
        .client
        .post("/store/carts", &json!({ "region_id": "reg_eu" }))
        .await
        .unwrap()
        .json();
    let cart = format!("/store/carts/{}", cart["cart"]["id"].as_str().unwrap());
    let items = format!("{cart}/line-items");
    let item = |variant: &str, quantity: Value| {
        json!({ "variant_id": variant, "quantity": quantity }).to_string()
    };
    let once = json!({ "code": "SAVE1", "percent": 5 }).to_string();
    for (path, body, status, words) in [
        ("/store/carts", "{".to_owned(), 400, "body: EOF"),
        (
            "/store/carts",
            r#"{"region_id":"nowhere"}"#.to_owned(),
            400,
            "no region",
        ),
        (
            "/store/carts",
            r#"{"region_id":"reg_eu","currency_code":"xxx"}"#.to_owned(),
            400,
            "currency_code",
        ),
        (
            "/store/carts",
            r#"{"region_id":"reg_eu","email":"nobody"}"#.to_owned(),
            400,
            "not an address",
        ),
        (
            "/store/carts",
            r#"{"region_id":"reg_eu\u0000"}"#.to_owned(),
            400,
            "U+0000",
        ),
        (
            "/store/carts",
            format!("\"{}\"", "x".repeat(5_000)),
            413,
            "4096 bytes",
        ),
        (
            "/store/carts/cart_none/line-items",
            item("variant_3_1", json!(1)),
            404,
            "cart_none",
        ),
        (&items, item("variant_none", json!(1)), 400, "variant_none"),
        (&items, item("variant_3_1", json!(-1)), 400, "from 1 to"),
        (
            &items,
            item("variant_3_1", json!(1.5)),
            400,
            "body: invalid type",
        ),
        (&items, item("variant_3_1", json!(201)), 409, "not in stock"),
        (
            &items,
            item("variant_50_1", json!(1)),
            400,
            "nothing is sold",
        ),
        (
            &format!("{cart}/promotions"),
            r#"{"promo_codes":["NOPE"]}"#.to_owned(),
            400,
            "NOPE",
        ),
        (
            &format!("{cart}/promotions"),
            r#"{"promo_codes":[]}"#.to_owned(),
            400,
            "from 1",
        ),
        (
            &format!("{cart}/shipping-methods"),
            r#"{"option_id":"so_us_standard"}"#.to_owned(),
            400,
            "so_us",
        ),
        (
            &format!("{cart}/complete"),
            "{}".to_owned(),
            400,
            "is empty",
        ),
        (
            "/store/payment-collections/pay_none/payments",
            r#"{"provider_id":"pp_card"}"#.to_owned(),
            404,
            "pay_none",
        ),
        (
            "/admin/products/prod_none",
            r#"{"title":"x"}"#.to_owned(),
            404,
            "prod_none",
        ),
        (
            "/admin/products/prod_1",
            "{}".to_owned(),
            400,
            "nothing to change",
        ),
        (
            "/admin/variants/variant_3_1/prices",
            r#"{"currency_code":"xxx","amount":1}"#.to_owned(),
            400,
            "xxx",
        ),
        (
            "/admin/variants/variant_3_1/stock",
            r#"{"location_id":"sloc_north","stocked":-1}"#.to_owned(),
            400,
            "stocked",
        ),
        ("/admin/promotions", once, 409, "exists"),
    ] {
        let reply = shop.client.post_text(path, body.clone()).await.unwrap();
        let said = reply.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert_eq!(reply.status, status, "{path} {body}: {said}");
        assert!(said.contains(words), "{path} {body}: {said}");
    }
    for (path, status) in [
        ("/store/products?currency_code=xxx", 400),
        ("/store/products?limit=0", 400),
        ("/store/products?limit=many", 400),
        ("/store/products?order=price", 400),
        ("/store/products?colour=red", 400),
        ("/store/products/%00", 400),
        ("/store/products/prod_50", 404),
        ("/store/carts/cart_none", 404),
        ("/store/orders/order_none", 404),
        ("/store/shipping-options", 400),
        ("/store/nothing", 404),
        ("/store/payment-collections", 405),
    ] {
        assert_eq!(
            shop.client.get(path).await.unwrap().status,
            status,
            "{path}"
        );
    }
    for key in ["", "pk_wrong", "pk_revoked"] {
        let reply = shop.client().key(key).get("/store/regions").await.unwrap();
        assert_eq!(reply.status, 401, "{key:?}");
    }
    let written = "SELECT count(*) FROM cart WHERE version > 0";
    assert_eq!(shop.servers.postgres.psql(written), "0");
    assert_eq!(
        shop.servers.postgres.psql("SELECT count(*) FROM line_item"),
        "0"
    );
    shop.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_promotion_is_given_once_and_a_withdrawn_one_not_at_all() {
    let mut shop = Shop::open(100).await;
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let path = ready_cart(&mut shop.client, "variant_3_1", 1).await;
        let codes = json!({ "promo_codes": ["ONCE"] });
        let applied = shop
            .client
            .post(&format!("{path}/promotions"), &codes)
            .await
            .unwrap();
        assert_eq!(
            applied.json()["cart"]["totals"]["discount"],
            (900 + 3 * 37 + 50) / 2
        );
        let done = shop
            .client
            .post(&format!("{path}/complete"), &json!({}))
            .await
            .unwrap();
        outcomes.push(done.status.as_u16());
    }
    assert_eq!(outcomes, [200, 409]);
    let withdrawn = shop
        .client
        .post("/admin/promotions/promo_2", &json!({ "is_active": false }))
        .await
        .unwrap();
    assert_eq!(withdrawn.status, 200);
    let path = ready_cart(&mut shop.client, "variant_3_1", 1).await;
    let codes = json!({ "promo_codes": ["SAVE2"] });
    let refused = shop
        .client
        .post(&format!("{path}/promotions"), &codes)
        .await
        .unwrap();
    assert_eq!(refused.status, 400);
    shop.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_fills_in_a_browser_while_visitors_come() {
    let shop = Shop::with_feed(1_000_000).await;
    let live = Live::new(shop.servers.clone());
    let on = Server::start_with(shop.config.clone(), live.router())
        .await
        .unwrap();
    let without = Config {
        caching: Some(false),
        ..shop.config.clone()
    };
    let off = Server::start(without).await.unwrap();
    let as_well = Config {
        near: true,
        namespace: "storefront-near".to_owned(),
        ..shop.config.clone()
    };
    let near = Server::start(as_well).await.unwrap();
    let url = format!("http://{}/", on.address);

    // Before the first visitor: every row is there, and says that it knows nothing.
    let (document, complaints) = browse(&url).await;
    assert_eq!(complaints, "");
    let rows = table(&document);
    assert_eq!(rows.len(), 15, "{rows:?}");
    assert!(
        rows.iter().all(|row| row[1] == "0" && row[2] == "–"),
        "{rows:?}"
    );

    let visitors = live.visitors(&off, &on, &near);
    let deadline = std::time::Instant::now() + 2 * wait::PATIENCE;
    let (document, rows) = loop {
        let (document, complaints) = browse(&url).await;
        assert_eq!(complaints, "");
        let rows = table(&document);
        if rows
            .iter()
            .all(|row| row[2..5].iter().all(|cell| cell != "–"))
        {
            break (document, rows);
        }
        assert!(std::time::Instant::now() < deadline, "{rows:?}");
    };
    for row in &rows {
        // Endpoint, requests, three medians, bars, p95, saved, near saved, published, hits, near hits.
        assert_eq!(row.len(), 12, "{row:?}");
        for at in 7..12 {
            assert!(row[at].ends_with(" %"), "{row:?}");
        }
    }
    let (later, _) = browse(&url).await;
    let counted = [requests(&rows), requests(&table(&later))];
    assert!(
        counted[1] > counted[0],
        "the table stands still: {counted:?}"
    );
    assert!(document.contains("0 requests failed."), "{document}");
    for figure in ["tags", "invalidations", "hits", "entries"] {
        let shown = format!("<dt>{figure}</dt><dd>");
        let (_, value) = document.split_once(&shown).expect("it is shown");
        assert!(!value.starts_with("0<"), "{figure}");
    }
    for (at, what) in [(10, "hit"), (11, "near hit")] {
        let some = rows.iter().any(|row| figure(&row[at]) > 0);
        assert!(some, "nothing was a {what}: {rows:?}");
    }
    drop(visitors);
    on.stop().await.unwrap();
    off.stop().await.unwrap();
    near.stop().await.unwrap();
}

/// The path behind `before` in what the program prints.
fn path_after(said: &[String], before: &str) -> PathBuf {
    let mut found = said.iter().filter_map(|line| line.split_once(before));
    let (_, path) = found.next().expect("it says where its servers are");
    PathBuf::from(path.split(' ').next().unwrap())
}

#[test]
fn whoever_stops_it_stops_everything_it_started() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let program = Command::new(env!("CARGO_BIN_EXE_storefront"))
            .env("STOREFRONT_LISTEN", "127.0.0.1:0")
            .env("STOREFRONT_PRODUCTS", "50")
            .env("MEDUSA_FF_CACHING", "true")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut program = KillOnDrop(program.unwrap());
        let mut said = Vec::new();
        for line in BufReader::new(program.stdout.take().unwrap()).lines() {
            said.push(line.unwrap());
            if said.last().unwrap().contains("Ctrl-C stops everything") {
                break;
            }
        }
        let database = path_after(&said, "host=");
        let cache = path_after(&said, "redis-cli -s ");
        assert!(database.is_dir() && cache.exists(), "{said:?}");
        let id = program.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
        let ended = program.wait().unwrap();
        assert!(ended.success(), "{signal}: {ended}");
        assert!(!database.exists(), "{signal} leaves {}", database.display());
        assert!(!cache.exists(), "{signal} leaves {}", cache.display());
    }
}
