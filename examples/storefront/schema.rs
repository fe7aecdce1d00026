//! The data model: what graph queries may ask for, and which tables it is stored in.
//!
//! Two schemas rather than one, because two kinds of data are treated differently: the [`catalogue`] is read by
//! all and cached; [`sales`], carts and orders, belong to one shopper each and are never cached. The second graph
//! has no cache at all, so that no code can cache a cart by mistake.

use mcache_graph::{Dependency, Entity, Field, Relation, Schema, SchemaError};
use mcache_postgres::{PostgresError, PostgresResolver};

/// What is sold, where, at which price: read by all, changed by the back office.
///
/// # Errors
///
/// Only if this function names something it does not declare.
pub fn catalogue() -> Result<Schema, SchemaError> {
    let builder = Schema::builder();
    let builder = products(builder);
    let builder = variants(builder);
    places(builder).build()
}

type Builder = mcache_graph::SchemaBuilder;

fn products(builder: Builder) -> Builder {
    builder
        .entity(
            Entity::new("Product")
                .alias("products")
                // The most selective first: what lists are filtered by.
                .field(Field::text("handle").lookup())
                .field(Field::text("collection_id").lookup())
                .field(Field::text("status").lookup())
                .fields(["title", "description", "thumbnail"])
                .field(Field::timestamp("created_at"))
                .relation(
                    Relation::has_many("variants", "ProductVariant", "product_id")
                        .ordered_by("rank"),
                )
                .relation(
                    Relation::has_many("options", "ProductOption", "product_id")
                        .ordered_by("title"),
                )
                .relation(Relation::has_many("images", "Image", "product_id").ordered_by("rank"))
                .relation(Relation::belongs_to(
                    "collection",
                    "ProductCollection",
                    "collection_id",
                ))
                .relation(Relation::linked_many(
                    "categories",
                    "ProductCategory",
                    "ProductInCategory",
                ))
                .relation(Relation::linked_many(
                    "sales_channels",
                    "SalesChannel",
                    "ProductInChannel",
                )),
        )
        .entity(Entity::link(
            "ProductInCategory",
            ("product_id", "Product"),
            ("product_category_id", "ProductCategory"),
        ))
        .entity(Entity::link(
            "ProductInChannel",
            ("product_id", "Product"),
            ("sales_channel_id", "SalesChannel"),
        ))
        .entity(
            Entity::new("ProductOption")
                .fields(["title", "product_id"])
                .relation(Relation::has_many(
                    "values",
                    "ProductOptionValue",
                    "option_id",
                )),
        )
        .entity(Entity::new("ProductOptionValue").fields(["value", "option_id"]))
        .entity(
            Entity::new("Image")
                .fields(["url", "product_id"])
                .field(Field::integer("rank")),
        )
        .entity(Entity::new("ProductCollection").fields(["title", "handle"]))
        .entity(
            Entity::new("ProductCategory")
                .fields(["name", "handle"])
                .field(Field::integer("rank"))
                .field(Field::boolean("is_active"))
                .field(Field::text("parent_category_id").lookup())
                .relation(
                    Relation::has_many(
                        "category_children",
                        "ProductCategory",
                        "parent_category_id",
                    )
                    .ordered_by("rank"),
                ),
        )
}

fn variants(builder: Builder) -> Builder {
    // Prices and stock are not shown row by row but as one figure per variant, made by the database; what that figure
    // is made from is declared, and then a reservation clears exactly the results that show its variant's stock.
    let calculated_price = Field::computed("calculated_price")
        .depends_on(Dependency::on("Price").keyed("variant_id", "id"));
    let inventory_quantity = Field::computed("inventory_quantity")
        .depends_on(Dependency::on("InventoryLevel").keyed("variant_id", "id"));
    builder
        .entity(
            Entity::new("ProductVariant")
                .alias("variants")
                .field(Field::text("product_id").lookup())
                .fields(["title", "sku"])
                .field(Field::integer("rank"))
                .field(calculated_price)
                .field(inventory_quantity)
                .relation(Relation::belongs_to("product", "Product", "product_id"))
                .relation(Relation::linked_many(
                    "options",
                    "ProductOptionValue",
                    "VariantOptionValue",
                )),
        )
        .entity(Entity::link(
            "VariantOptionValue",
            ("product_variant_id", "ProductVariant"),
            ("product_option_value_id", "ProductOptionValue"),
        ))
        .entity(
            Entity::new("Price")
                .field(Field::text("variant_id").lookup())
                .field("currency_code")
                .field(Field::integer("amount")),
        )
        .entity(
            Entity::new("InventoryLevel")
                .field(Field::text("variant_id").lookup())
                .field("location_id")
                .field(Field::integer("stocked"))
                .field(Field::integer("reserved")),
        )
}

fn places(builder: Builder) -> Builder {
    builder
        .entity(
            Entity::new("Region")
                .fields(["name", "currency_code"])
                .field(Field::integer("tax_percent"))
                .relation(Relation::has_many("countries", "Country", "region_id"))
                .relation(Relation::linked_many(
                    "payment_providers",
                    "PaymentProvider",
                    "RegionPaymentProvider",
                )),
        )
        .entity(Entity::new("Country").fields(["name", "region_id"]))
        .entity(Entity::new("PaymentProvider").field(Field::boolean("is_enabled")))
        .entity(Entity::link(
            "RegionPaymentProvider",
            ("region_id", "Region"),
            ("payment_provider_id", "PaymentProvider"),
        ))
        .entity(
            Entity::new("SalesChannel")
                .field("name")
                .field(Field::boolean("is_disabled"))
                .relation(Relation::linked_many(
                    "stock_locations",
                    "StockLocation",
                    "SalesChannelLocation",
                )),
        )
        .entity(Entity::new("StockLocation").field("name"))
        .entity(Entity::link(
            "SalesChannelLocation",
            ("sales_channel_id", "SalesChannel"),
            ("stock_location_id", "StockLocation"),
        ))
        .entity(
            Entity::new("ApiKey")
                .field(Field::text("token").lookup())
                .field("title")
                .field(Field::timestamp("revoked_at"))
                .relation(Relation::linked_many(
                    "sales_channels",
                    "SalesChannel",
                    "ApiKeySalesChannel",
                )),
        )
        .entity(Entity::link(
            "ApiKeySalesChannel",
            ("api_key_id", "ApiKey"),
            ("sales_channel_id", "SalesChannel"),
        ))
        .entity(
            Entity::new("ShippingOption")
                .field(Field::text("region_id").lookup())
                .fields(["name", "type"])
                .field(Field::integer("amount")),
        )
        .entity(
            Entity::new("Promotion")
                .field(Field::text("code").lookup())
                .field(Field::boolean("is_active"))
                .field(Field::integer("percent"))
                .field(Field::integer("usage_limit")),
        )
        .entity(
            Entity::new("Customer")
                .field(Field::text("email").lookup())
                .fields(["first_name", "last_name"]),
        )
}

/// Carts, payments and orders: each read by one shopper, right after it changed.
///
/// # Errors
///
/// As [`catalogue`].
pub fn sales() -> Result<Schema, SchemaError> {
    let buyer = ["region_id", "customer_id", "currency_code", "email"];
    let line = |name: &str, owner: &str| {
        Entity::new(name)
            .fields([owner, "variant_id", "product_id", "title"])
            .field(Field::integer("quantity"))
            .field(Field::integer("unit_price"))
    };
    let order = [
        "subtotal",
        "discount",
        "shipping",
        "tax",
        "total",
        "display_id",
    ];
    Schema::builder()
        .entity(
            Entity::new("Cart")
                .fields(buyer)
                .field("sales_channel_id")
                .field(Field::json("shipping_address"))
                .field(Field::integer("version"))
                .fields([
                    Field::timestamp("completed_at"),
                    Field::timestamp("created_at"),
                ])
                .relation(Relation::has_many("items", "LineItem", "cart_id"))
                .relation(Relation::has_many("promotions", "CartPromotion", "cart_id"))
                .relation(Relation::has_one(
                    "shipping_method",
                    "CartShippingMethod",
                    "cart_id",
                ))
                .relation(Relation::has_one(
                    "payment_collection",
                    "PaymentCollection",
                    "cart_id",
                ))
                .relation(Relation::has_one("order", "Order", "cart_id")),
        )
        .entity(line("LineItem", "cart_id"))
        .entity(Entity::new("CartPromotion").fields(["cart_id", "code"]))
        .entity(
            Entity::new("CartShippingMethod")
                .fields(["cart_id", "shipping_option_id", "name"])
                .field(Field::integer("amount")),
        )
        .entity(
            Entity::new("PaymentCollection")
                .fields(["cart_id", "currency_code"])
                .field(Field::integer("amount"))
                .relation(Relation::belongs_to("cart", "Cart", "cart_id"))
                .relation(Relation::has_many(
                    "payments",
                    "Payment",
                    "payment_collection_id",
                )),
        )
        .entity(
            Entity::new("Payment")
                .fields(["payment_collection_id", "provider_id"])
                .field(Field::integer("amount")),
        )
        .entity(
            Entity::new("Order")
                .fields(buyer)
                .fields(["cart_id", "shipping_name"])
                .field(Field::json("shipping_address"))
                .fields(order.map(Field::integer))
                .field(Field::timestamp("created_at"))
                .relation(Relation::has_many("items", "OrderItem", "order_id")),
        )
        .entity(line("OrderItem", "order_id"))
        .build()
}

/// Says how the computed fields of the catalogue are made.
///
/// # Errors
///
/// Only if the schema does not have them.
pub fn with_computed_fields(resolver: PostgresResolver) -> Result<PostgresResolver, PostgresError> {
    resolver
        .compute(
            "ProductVariant",
            "calculated_price",
            "SELECT p.variant_id, jsonb_build_object('amount', p.amount, 'currency_code', p.currency_code)
             FROM input, price AS p
             WHERE p.variant_id = ANY (input.ids) AND p.currency_code = input.context ->> 'currency_code'",
        )?
        .compute(
            "ProductVariant",
            "inventory_quantity",
            "SELECT l.variant_id, to_jsonb(sum(l.stocked - l.reserved))
             FROM input, inventory_level AS l
             WHERE l.variant_id = ANY (input.ids)
               AND l.location_id IN (SELECT jsonb_array_elements_text(input.context -> 'location_ids'))
             GROUP BY l.variant_id",
        )
}
