//! What precision is worth: the hit ratio of both levels on one store, one stream of 95 % reads and
//! 5 % writes, hits compared with fresh results.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use harness::Seed;
use mcache::change::ChangeEvent;
use mcache_graph::{
    Dependency, Direction, Entity, Field, Graph, GraphOptions, GraphQuery, GraphResult,
    MemoryResolver, Pagination, Precision, Relation, Row, Schema, Tables, TagSet,
};
use serde_json::{Value, json};

use super::{Totals, ready};

const PRODUCTS: usize = 120;
const VARIANTS: usize = 3;
const CATEGORIES: usize = 12;
const CUSTOMERS: usize = 80;
const CURRENCIES: [&str; 3] = ["eur", "usd", "gbp"];

/// Reads and writes before hits are counted, so that first reads do not count as misses.
const WARM_UP: usize = 1_500;

/// Reads and writes that are counted, of the default run and of the long one.
const STEPS: usize = 3_000;
const STEPS_LONG: usize = 20_000;

#[test]
fn precise_tags_hit_at_least_twice_as_often_as_compatible_ones() {
    let mut seed = Seed::draw("graph_oracle::shop");
    let mix = Mix::run(&mut seed, STEPS, 5);
    println!("{}", mix.table());
    let [precise, compatible] = &mix.levels;
    assert!(
        precise.hit_ratio() >= 2.0 * compatible.hit_ratio(),
        "precise {:.3}, compatible {:.3} ({seed})",
        precise.hit_ratio(),
        compatible.hit_ratio(),
    );
}

/// Writes `docs/results/oracle.md` after a long run.
pub fn report(totals: &Totals, seed: &Seed) {
    let mut mix_seed = Seed::fixed(1);
    let mix = Mix::run(&mut mix_seed, STEPS_LONG, 1);
    let mut text = format!(
        "# The oracle: what it checked\n\n\
         Written by `MCACHE_LONG=1 cargo test -p mcache-tests --test suite graph_oracle` ({seed}).\n\
         How it works: [graph.md](../graph.md#the-oracle).\n\n\
         ## No stale result\n\n\
         | | |\n|---|---|\n\
         | random worlds (schema, data, queries) | {} |\n\
         | changes applied and told | {} |\n\
         | fills, of which interrupted by changes | {}, {} |\n\
         | **(query, change) pairs: cached result compared with a fresh one** | **{}** |\n\
         | **stale results** | **0** |\n\
         | results cleared | {} |\n\n",
        totals.worlds,
        totals.changes,
        totals.fills,
        totals.interrupted_fills,
        totals.pairs,
        totals.cleared,
    );
    text.push_str("## Hit ratio on a store-like mix\n\n");
    text.push_str(&mix.table());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results/oracle.md");
    std::fs::write(path, &text).unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("{text}\nwritten to {path}");
}

/// One run of the mix, both levels side by side.
struct Mix {
    levels: [Level; 2],
    kinds: Vec<&'static str>,
    reads: usize,
    writes: usize,
    checked: u64,
}

/// A cache in memory with the tags of one level of precision.
struct Level {
    graph: Graph,
    entries: HashMap<String, Kept>,
    keys_by_tag: HashMap<String, Vec<String>>,
    /// Hits and reads by kind of query.
    hits: HashMap<&'static str, (u64, u64)>,
    cleared: u64,
    tags: Vec<usize>,
}

struct Kept {
    result: GraphResult,
    tags: TagSet,
}

impl Mix {
    /// `check_every`: one in so many reads is compared with a fresh result if it hit.
    fn run(seed: &mut Seed, steps: usize, check_every: usize) -> Self {
        let shop = Arc::new(Shop::new(seed));
        let level = |precision| Level {
            graph: Graph::builder(shop.schema.clone(), shop.store.clone())
                .precision(precision)
                .build(),
            entries: HashMap::new(),
            keys_by_tag: HashMap::new(),
            hits: HashMap::new(),
            cleared: 0,
            tags: Vec::new(),
        };
        let mut mix = Self {
            levels: [level(Precision::Precise), level(Precision::Compatible)],
            kinds: Vec::new(),
            reads: 0,
            writes: 0,
            checked: 0,
        };
        for step in 0..WARM_UP + steps {
            if step == WARM_UP {
                mix.forget_counts();
            }
            if seed.chance(95) {
                let (kind, query) = shop.random_read(seed);
                if !mix.kinds.contains(&kind) {
                    mix.kinds.push(kind);
                }
                mix.reads += 1;
                let hits = mix.levels.each_mut().map(|level| level.read(kind, &query));
                let hits: Vec<GraphResult> = hits.into_iter().flatten().collect();
                if hits.is_empty() || step % check_every != 0 {
                    continue;
                }
                let fresh = ready(mix.levels[0].graph.load(&query, &GraphOptions::default()));
                let fresh = fresh.expect("a query of the shop").into_result();
                for hit in hits {
                    assert_eq!(hit, fresh, "stale {kind}: {query:?} ({seed})");
                    mix.checked += 1;
                }
            } else {
                mix.writes += 1;
                for event in shop.random_write(seed, step) {
                    mix.levels.iter_mut().for_each(|level| level.clear(&event));
                }
            }
        }
        mix
    }

    fn forget_counts(&mut self) {
        self.reads = 0;
        self.writes = 0;
        for level in &mut self.levels {
            level.hits.clear();
            level.cleared = 0;
        }
    }

    fn table(&self) -> String {
        let [precise, compatible] = &self.levels;
        let mut text = format!(
            "{} reads, {} writes after a warm-up of {WARM_UP}, over {PRODUCTS} products, {} variants, {} prices; no \
             expiry, no eviction; hits compared with fresh results: {}, stale: 0.\n\n\
             | | precise | compatible |\n|---|---|---|\n",
            self.reads,
            self.writes,
            PRODUCTS * VARIANTS,
            PRODUCTS * VARIANTS * CURRENCIES.len(),
            self.checked,
        );
        let mut row = |name: &str, cell: &dyn Fn(&Level) -> String| {
            let _ = writeln!(
                text,
                "| {name} | {} | {} |",
                cell(precise),
                cell(compatible)
            );
        };
        row("**hit ratio**", &|level| {
            format!("**{:.1} %**", level.hit_ratio() * 100.0)
        });
        for kind in &self.kinds {
            row(kind, &|level| {
                let (hits, reads) = level.hits[kind];
                format!("{:.1} %", hits as f64 / reads as f64 * 100.0)
            });
        }
        row("results cleared per write", &|level| {
            format!("{:.1}", level.cleared as f64 / self.writes as f64)
        });
        row("tags per result: median, p90, max", &|level| {
            let mut tags = level.tags.clone();
            tags.sort_unstable();
            let at = |share: f64| tags[((tags.len() - 1) as f64 * share) as usize];
            format!("{}, {}, {}", at(0.5), at(0.9), at(1.0))
        });
        let _ = writeln!(
            text,
            "\nPrecise hits {:.1} times as often as compatible (goal: 2).",
            precise.hit_ratio() / compatible.hit_ratio(),
        );
        text
    }
}

impl Level {
    /// The cached result if there is one; else the entry is filled.
    fn read(&mut self, kind: &'static str, query: &GraphQuery) -> Option<GraphResult> {
        let key = ready(self.graph.key(query, &GraphOptions::default())).expect("rows in memory");
        let (hits, reads) = self.hits.entry(kind).or_default();
        *reads += 1;
        if let Some(kept) = self.entries.get(&key) {
            *hits += 1;
            return Some(kept.result.clone());
        }
        let loaded = ready(self.graph.load(query, &GraphOptions::default()));
        let answer = loaded.expect("a query of the shop");
        let tags = answer.tags().tags;
        let result = answer.into_result();
        for tag in tags.iter() {
            let keys = self.keys_by_tag.entry(tag.to_owned()).or_default();
            keys.push(key.clone());
        }
        self.tags.push(tags.len());
        self.entries.insert(key, Kept { result, tags });
        None
    }

    fn clear(&mut self, event: &ChangeEvent) {
        let tags = self
            .graph
            .change_tags()
            .of(event)
            .expect("an entity of the shop");
        for tag in tags.iter() {
            for key in self.keys_by_tag.remove(tag).unwrap_or_default() {
                let still = self
                    .entries
                    .get(&key)
                    .is_some_and(|kept| kept.tags.contains(tag));
                if still && self.entries.remove(&key).is_some() {
                    self.cleared += 1;
                }
            }
        }
    }

    fn hit_ratio(&self) -> f64 {
        let (hits, reads) = self.hits.values().fold((0, 0), |(hits, reads), kind| {
            (hits + kind.0, reads + kind.1)
        });
        hits as f64 / reads as f64
    }
}

/// A store: what Medusa's modules would hold.
struct Shop {
    schema: Arc<Schema>,
    store: Arc<MemoryResolver>,
}

fn schema() -> Schema {
    let stock = Dependency::on("InventoryLevel")
        .keyed("variant_id", "id")
        .fields(["stocked_quantity", "reserved_quantity"]);
    Schema::builder()
        .entity(Entity::new("Region").fields(["name", "currency_code"]))
        .entity(
            Entity::new("Category")
                .fields(["name", "parent_id"])
                .field(Field::integer("rank"))
                .relation(
                    Relation::has_many("children", "Category", "parent_id").ordered_by("rank"),
                ),
        )
        .entity(
            Entity::new("Product")
                .fields([
                    Field::text("handle").lookup(),
                    Field::text("status").lookup(),
                ])
                .fields(["title", "description"])
                .relation(Relation::has_many("variants", "Variant", "product_id"))
                .relation(Relation::linked_many(
                    "categories",
                    "Category",
                    "LinkProductCategory",
                )),
        )
        .entity(Entity::link(
            "LinkProductCategory",
            ("product_id", "Product"),
            ("category_id", "Category"),
        ))
        .entity(
            Entity::new("Variant")
                .fields(["sku", "title", "product_id"])
                .field(Field::computed("available").depends_on(stock))
                .relation(Relation::has_many("prices", "Price", "variant_id")),
        )
        .entity(
            Entity::new("Price")
                .fields(["currency_code", "variant_id"])
                .field(Field::number("amount")),
        )
        .entity(
            Entity::new("InventoryLevel")
                .fields(["variant_id", "location_id"])
                .fields([
                    Field::integer("stocked_quantity"),
                    Field::integer("reserved_quantity"),
                ])
                .relation(Relation::has_many(
                    "reservations",
                    "ReservationItem",
                    "level_id",
                )),
        )
        .entity(
            Entity::new("ReservationItem")
                .fields(["level_id", "line_item_id"])
                .field(Field::integer("quantity")),
        )
        .entity(Entity::new("Customer").field("email"))
        .entity(
            Entity::new("Order")
                .fields([Field::text("customer_id").lookup(), Field::text("status")])
                .relation(Relation::has_many("items", "OrderItem", "order_id")),
        )
        .entity(
            Entity::new("OrderItem")
                .fields(["order_id", "variant_id"])
                .field(Field::integer("quantity"))
                .relation(Relation::belongs_to("variant", "Variant", "variant_id")),
        )
        .build()
        .expect("the schema of the shop")
}

/// What is in stock and not reserved, at all locations.
fn available(tables: &Tables, variant: &Row, _context: &Value) -> Value {
    let levels = tables
        .rows("InventoryLevel")
        .filter(|level| level["variant_id"] == variant["id"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    json!(levels.fold(0, |sum, level| {
        sum + number(&level["stocked_quantity"]) - number(&level["reserved_quantity"])
    }))
}

impl Shop {
    fn new(seed: &mut Seed) -> Self {
        let schema = Arc::new(schema());
        let store = MemoryResolver::new(schema.clone()).compute("Variant", "available", available);
        let shop = Self {
            schema,
            store: Arc::new(store),
        };
        for number in 0..5 {
            let currency = CURRENCIES[number % CURRENCIES.len()];
            shop.put(
                "Region",
                json!({ "id": format!("reg_{number}"), "name": "r", "currency_code": currency }),
            );
        }
        for number in 0..CATEGORIES {
            let parent = (number >= 4).then(|| format!("pcat_{}", number % 4));
            shop.put("Category", json!({
                "id": format!("pcat_{number}"), "name": "c", "parent_id": parent, "rank": number,
            }));
        }
        for number in 0..CUSTOMERS {
            shop.put(
                "Customer",
                json!({ "id": format!("cus_{number}"), "email": "a@b" }),
            );
        }
        for number in 0..PRODUCTS {
            shop.new_product(seed, number);
        }
        shop
    }

    fn put(&self, entity: &str, row: Value) -> ChangeEvent {
        self.store.put(entity, row).expect("a row of the shop")
    }

    fn update(&self, entity: &str, id: &str, fields: Value) -> Vec<ChangeEvent> {
        self.store
            .update(entity, id, fields)
            .expect("an entity of the shop")
            .into_iter()
            .collect()
    }

    fn new_product(&self, seed: &mut Seed, number: usize) -> Vec<ChangeEvent> {
        let id = format!("prod_{number}");
        let status = if seed.chance(90) {
            "published"
        } else {
            "draft"
        };
        let mut events = vec![self.put(
            "Product",
            json!({
                "id": id, "handle": format!("handle-{number}"), "status": status,
                "title": format!("title {}", seed.u16(..)), "description": "d",
            }),
        )];
        let category = format!("pcat_{}", seed.usize(0..CATEGORIES));
        events.push(self.put(
            "LinkProductCategory",
            json!({ "product_id": id, "category_id": category }),
        ));
        for v in 0..VARIANTS {
            let variant = format!("variant_{number}_{v}");
            events.push(self.put(
                "Variant",
                json!({
                    "id": variant, "sku": "s", "title": "t", "product_id": id,
                }),
            ));
            for currency in CURRENCIES {
                events.push(self.put(
                    "Price",
                    json!({
                        "id": format!("price_{number}_{v}_{currency}"), "currency_code": currency,
                        "variant_id": variant, "amount": seed.u32(1..100),
                    }),
                ));
            }
            events.push(self.put("InventoryLevel", json!({
                "id": format!("ilev_{number}_{v}"), "variant_id": variant, "location_id": "sloc_1",
                "stocked_quantity": 1_000, "reserved_quantity": 0,
            })));
        }
        events
    }

    /// A popular product more often than others.
    fn popular(seed: &mut Seed) -> usize {
        let share = seed.f64();
        (share * share * PRODUCTS as f64) as usize
    }

    fn random_read(&self, seed: &mut Seed) -> (&'static str, GraphQuery) {
        match seed.u8(0..100) {
            0..25 => {
                let handle = format!("handle-{}", Self::popular(seed));
                let query = GraphQuery::new("product")
                    .fields([
                        "id",
                        "title",
                        "description",
                        "variants.title",
                        "variants.available",
                    ])
                    .fields(["variants.prices.amount", "variants.prices.currency_code"])
                    .filters(json!({ "handle": handle, "status": "published" }));
                ("product page", query)
            }
            25..50 => {
                let category = format!("pcat_{}", seed.usize(0..CATEGORIES));
                let query = GraphQuery::new("product")
                    .fields([
                        "id",
                        "title",
                        "handle",
                        "variants.available",
                        "variants.prices.amount",
                    ])
                    .filters(json!({ "status": "published", "categories": { "id": category } }))
                    .pagination(Pagination::new().take(8).skip(seed.u64(0..2) * 8));
                ("product list of a category", query)
            }
            50..55 => {
                let query = GraphQuery::new("product")
                    .fields(["id", "title", "handle"])
                    .filters(json!({ "status": "published" }))
                    .pagination(
                        Pagination::new()
                            .take(12)
                            .skip(seed.u64(0..4) * 12)
                            .order("title", Direction::Asc),
                    );
                ("product list by title", query)
            }
            55..65 => {
                let product = Self::popular(seed);
                let query = GraphQuery::new("inventory_level")
                    .fields(["*", "reservations.quantity"])
                    .filters(json!({ "variant_id": format!("variant_{product}_{}", seed.usize(0..VARIANTS)) }));
                ("stock of a variant", query)
            }
            65..75 => ("regions", GraphQuery::new("region").fields(["*"])),
            75..83 => {
                let query = GraphQuery::new("category")
                    .fields(["name", "children.name", "children.children.name"])
                    .filters(json!({ "parent_id": null }));
                ("category tree", query)
            }
            83..93 => {
                let customer = format!("cus_{}", seed.usize(0..CUSTOMERS));
                let query = GraphQuery::new("order")
                    .fields(["id", "status", "items.quantity", "items.variant.title"])
                    .filters(json!({ "customer_id": customer }))
                    .pagination(Pagination::new().take(10));
                ("orders of a customer", query)
            }
            _ => {
                let id = format!("cus_{}", seed.usize(0..CUSTOMERS));
                (
                    "customer",
                    GraphQuery::new("customer")
                        .fields(["id", "email"])
                        .filters(json!({ "id": id })),
                )
            }
        }
    }

    /// The events of one write: an order, or something in the back office.
    fn random_write(&self, seed: &mut Seed, step: usize) -> Vec<ChangeEvent> {
        let product = Self::popular(seed);
        let variant = seed.usize(0..VARIANTS);
        let level = format!("ilev_{product}_{variant}");
        match seed.u8(0..100) {
            0..60 => self.order(seed, step, product, variant),
            60..70 => {
                let stocked = json!({ "stocked_quantity": seed.u32(100..2_000) });
                self.update("InventoryLevel", &level, stocked)
            }
            70..80 => {
                let id = format!("price_{product}_{variant}_{}", seed.pick(&CURRENCIES));
                self.update("Price", &id, json!({ "amount": seed.u32(1..100) }))
            }
            80..88 => {
                let title = format!("title {}", seed.u16(..));
                self.update(
                    "Product",
                    &format!("prod_{product}"),
                    json!({ "title": title }),
                )
            }
            88..92 => {
                let status = *seed.pick(&["published", "draft"]);
                self.update(
                    "Product",
                    &format!("prod_{product}"),
                    json!({ "status": status }),
                )
            }
            92..95 => self.new_product(seed, PRODUCTS + step),
            95..98 => {
                let category = format!("pcat_{}", seed.usize(0..CATEGORIES));
                let link =
                    json!({ "product_id": format!("prod_{product}"), "category_id": category });
                vec![self.put("LinkProductCategory", link)]
            }
            98 => self.update(
                "Category",
                &format!("pcat_{}", seed.usize(0..CATEGORIES)),
                json!({ "name": format!("c{step}") }),
            ),
            _ => self.update(
                "Region",
                &format!("reg_{}", seed.usize(0..5)),
                json!({ "name": format!("r{step}") }),
            ),
        }
    }

    fn order(
        &self,
        seed: &mut Seed,
        step: usize,
        product: usize,
        variant: usize,
    ) -> Vec<ChangeEvent> {
        let order = format!("order_{step}");
        let customer = format!("cus_{}", seed.usize(0..CUSTOMERS));
        let level = format!("ilev_{product}_{variant}");
        let reserved = self.store.get("InventoryLevel", &level);
        let reserved = reserved
            .and_then(|level| level["reserved_quantity"].as_i64())
            .unwrap_or(0);
        let mut events = vec![
            self.put(
                "Order",
                json!({ "id": order, "customer_id": customer, "status": "pending" }),
            ),
            self.put(
                "OrderItem",
                json!({
                    "id": format!("ordli_{step}"), "order_id": order, "quantity": 1,
                    "variant_id": format!("variant_{product}_{variant}"),
                }),
            ),
            self.put(
                "ReservationItem",
                json!({
                    "id": format!("resitem_{step}"), "level_id": level, "quantity": 1,
                    "line_item_id": format!("ordli_{step}"),
                }),
            ),
        ];
        events.extend(self.update(
            "InventoryLevel",
            &level,
            json!({ "reserved_quantity": reserved + 1 }),
        ));
        events
    }
}
