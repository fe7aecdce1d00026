//! The store that both levels read: its schema, its rows, what visitors read and what the shop writes.

use std::sync::Arc;

use harness::Seed;
use mcache::change::ChangeEvent;
use mcache_graph::{
    Dependency, Direction, Entity, Field, GraphQuery, MemoryResolver, Pagination, Relation, Row,
    Schema, Tables,
};
use serde_json::{Value, json};

use super::{CATEGORIES, CURRENCIES, CUSTOMERS, PRODUCTS, VARIANTS};

/// A store: what Medusa's modules would hold.
pub(super) struct Shop {
    pub(super) schema: Arc<Schema>,
    pub(super) store: Arc<MemoryResolver>,
}

pub(super) fn schema() -> Schema {
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
pub(super) fn available(tables: &Tables, variant: &Row, _context: &Value) -> Value {
    let levels = tables
        .rows("InventoryLevel")
        .filter(|level| level["variant_id"] == variant["id"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    json!(levels.fold(0, |sum, level| {
        sum + number(&level["stocked_quantity"]) - number(&level["reserved_quantity"])
    }))
}

impl Shop {
    pub(super) fn new(seed: &mut Seed) -> Self {
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

    pub(super) fn put(&self, entity: &str, row: Value) -> ChangeEvent {
        self.store.put(entity, row).expect("a row of the shop")
    }

    pub(super) fn update(&self, entity: &str, id: &str, fields: Value) -> Vec<ChangeEvent> {
        self.store
            .update(entity, id, fields)
            .expect("an entity of the shop")
            .into_iter()
            .collect()
    }

    pub(super) fn new_product(&self, seed: &mut Seed, number: usize) -> Vec<ChangeEvent> {
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
    pub(super) fn popular(seed: &mut Seed) -> usize {
        let share = seed.f64();
        (share * share * PRODUCTS as f64) as usize
    }

    pub(super) fn random_read(&self, seed: &mut Seed) -> (&'static str, GraphQuery) {
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
    pub(super) fn random_write(&self, seed: &mut Seed, step: usize) -> Vec<ChangeEvent> {
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

    pub(super) fn order(
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
