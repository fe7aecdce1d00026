-- The storefront's tables. Money is in minor units (cents).

-- The catalogue: read by all, changed by the back office; what is read from here is cached.
CREATE TABLE region (
    id text PRIMARY KEY, name text NOT NULL, currency_code text NOT NULL, tax_percent integer NOT NULL DEFAULT 0);
CREATE TABLE country (id text PRIMARY KEY, name text NOT NULL, region_id text NOT NULL REFERENCES region);
CREATE TABLE payment_provider (id text PRIMARY KEY, is_enabled boolean NOT NULL DEFAULT true);
CREATE TABLE region_payment_provider (
    region_id text REFERENCES region, payment_provider_id text REFERENCES payment_provider,
    PRIMARY KEY (region_id, payment_provider_id));
CREATE TABLE stock_location (id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE sales_channel (id text PRIMARY KEY, name text NOT NULL, is_disabled boolean NOT NULL DEFAULT false);
CREATE TABLE sales_channel_location (
    sales_channel_id text REFERENCES sales_channel, stock_location_id text REFERENCES stock_location,
    PRIMARY KEY (sales_channel_id, stock_location_id));
CREATE TABLE api_key (id text PRIMARY KEY, token text NOT NULL UNIQUE, title text NOT NULL, revoked_at timestamptz);
CREATE TABLE api_key_sales_channel (
    api_key_id text REFERENCES api_key, sales_channel_id text REFERENCES sales_channel,
    PRIMARY KEY (api_key_id, sales_channel_id));
CREATE TABLE product_collection (id text PRIMARY KEY, title text NOT NULL, handle text NOT NULL UNIQUE);
CREATE TABLE product_category (
    id text PRIMARY KEY, name text NOT NULL, handle text NOT NULL UNIQUE, rank integer NOT NULL,
    is_active boolean NOT NULL DEFAULT true, parent_category_id text REFERENCES product_category);
CREATE TABLE product (
    id text PRIMARY KEY DEFAULT 'prod_' || replace(gen_random_uuid()::text, '-', ''),
    title text NOT NULL, handle text NOT NULL UNIQUE, description text, thumbnail text,
    status text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'published')),
    collection_id text REFERENCES product_collection, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE product_in_category (
    product_id text REFERENCES product, product_category_id text REFERENCES product_category,
    PRIMARY KEY (product_id, product_category_id));
CREATE TABLE product_in_channel (
    product_id text REFERENCES product, sales_channel_id text REFERENCES sales_channel,
    PRIMARY KEY (product_id, sales_channel_id));
CREATE TABLE image (
    id text PRIMARY KEY, product_id text NOT NULL REFERENCES product, url text NOT NULL, rank integer NOT NULL);
CREATE TABLE product_option (
    id text PRIMARY KEY, product_id text NOT NULL REFERENCES product, title text NOT NULL);
CREATE TABLE product_option_value (
    id text PRIMARY KEY, option_id text NOT NULL REFERENCES product_option, value text NOT NULL);
CREATE TABLE product_variant (
    id text PRIMARY KEY DEFAULT 'variant_' || replace(gen_random_uuid()::text, '-', ''),
    product_id text NOT NULL REFERENCES product, title text NOT NULL, sku text NOT NULL UNIQUE,
    rank integer NOT NULL);
CREATE TABLE variant_option_value (
    product_variant_id text REFERENCES product_variant, product_option_value_id text REFERENCES product_option_value,
    PRIMARY KEY (product_variant_id, product_option_value_id));
CREATE TABLE price (
    id text PRIMARY KEY DEFAULT 'price_' || replace(gen_random_uuid()::text, '-', ''),
    variant_id text NOT NULL REFERENCES product_variant, currency_code text NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0), UNIQUE (variant_id, currency_code));
-- Overselling is impossible even if a cache is wrong: no reservation beyond what is there is ever committed.
CREATE TABLE inventory_level (
    id text PRIMARY KEY DEFAULT 'ilev_' || replace(gen_random_uuid()::text, '-', ''),
    variant_id text NOT NULL REFERENCES product_variant, location_id text NOT NULL REFERENCES stock_location,
    stocked integer NOT NULL, reserved integer NOT NULL DEFAULT 0,
    UNIQUE (variant_id, location_id), CONSTRAINT never_oversold CHECK (reserved BETWEEN 0 AND stocked));
CREATE TABLE shipping_option (
    id text PRIMARY KEY, region_id text NOT NULL REFERENCES region, name text NOT NULL, type text NOT NULL,
    amount bigint NOT NULL);
CREATE TABLE promotion (
    id text PRIMARY KEY DEFAULT 'promo_' || replace(gen_random_uuid()::text, '-', ''),
    code text NOT NULL UNIQUE, is_active boolean NOT NULL DEFAULT true, percent integer NOT NULL
    CHECK (percent BETWEEN 1 AND 100), usage_limit integer);
CREATE TABLE customer (
    id text PRIMARY KEY DEFAULT 'cus_' || replace(gen_random_uuid()::text, '-', ''),
    email text NOT NULL UNIQUE, first_name text, last_name text);

-- What shoppers do: never cached, so no trigger watches these.
CREATE TABLE cart (
    id text PRIMARY KEY DEFAULT 'cart_' || replace(gen_random_uuid()::text, '-', ''),
    region_id text NOT NULL REFERENCES region, sales_channel_id text NOT NULL REFERENCES sales_channel,
    customer_id text REFERENCES customer, currency_code text NOT NULL, email text, shipping_address jsonb,
    -- Counts changes: what was priced under one version is not ordered under another.
    version integer NOT NULL DEFAULT 0, completed_at timestamptz, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE line_item (
    id text PRIMARY KEY DEFAULT 'cali_' || replace(gen_random_uuid()::text, '-', ''),
    cart_id text NOT NULL REFERENCES cart, variant_id text NOT NULL REFERENCES product_variant,
    product_id text NOT NULL REFERENCES product, title text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0), unit_price bigint NOT NULL, UNIQUE (cart_id, variant_id));
CREATE TABLE cart_promotion (
    id text PRIMARY KEY DEFAULT 'capro_' || replace(gen_random_uuid()::text, '-', ''),
    cart_id text NOT NULL REFERENCES cart, code text NOT NULL, UNIQUE (cart_id, code));
CREATE TABLE cart_shipping_method (
    id text PRIMARY KEY DEFAULT 'casm_' || replace(gen_random_uuid()::text, '-', ''),
    cart_id text NOT NULL UNIQUE REFERENCES cart, shipping_option_id text NOT NULL REFERENCES shipping_option,
    name text NOT NULL, amount bigint NOT NULL);
CREATE TABLE payment_collection (
    id text PRIMARY KEY DEFAULT 'pay_col_' || replace(gen_random_uuid()::text, '-', ''),
    cart_id text NOT NULL UNIQUE REFERENCES cart, currency_code text NOT NULL, amount bigint NOT NULL);
CREATE TABLE payment (
    id text PRIMARY KEY DEFAULT 'pay_' || replace(gen_random_uuid()::text, '-', ''),
    payment_collection_id text NOT NULL REFERENCES payment_collection,
    provider_id text NOT NULL REFERENCES payment_provider, amount bigint NOT NULL,
    UNIQUE (payment_collection_id, provider_id));
CREATE TABLE "order" (
    id text PRIMARY KEY DEFAULT 'order_' || replace(gen_random_uuid()::text, '-', ''),
    display_id bigint GENERATED ALWAYS AS IDENTITY, cart_id text NOT NULL UNIQUE REFERENCES cart,
    region_id text NOT NULL REFERENCES region, customer_id text REFERENCES customer, currency_code text NOT NULL,
    email text, shipping_address jsonb, shipping_name text NOT NULL, subtotal bigint NOT NULL, discount bigint NOT NULL,
    shipping bigint NOT NULL, tax bigint NOT NULL, total bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE order_item (
    id text PRIMARY KEY DEFAULT 'ordli_' || replace(gen_random_uuid()::text, '-', ''),
    order_id text NOT NULL REFERENCES "order", variant_id text NOT NULL REFERENCES product_variant,
    product_id text NOT NULL REFERENCES product, title text NOT NULL,
    quantity integer NOT NULL, unit_price bigint NOT NULL);
-- How often a code was used changes with each order and is checked where it changes: it is not part of a promotion.
CREATE TABLE promotion_use (code text PRIMARY KEY, times integer NOT NULL);

CREATE INDEX ON product (collection_id);
CREATE INDEX ON product (created_at DESC, id);
CREATE INDEX ON product_in_category (product_category_id);
CREATE INDEX ON image (product_id);
CREATE INDEX ON product_option (product_id);
CREATE INDEX ON product_option_value (option_id);
CREATE INDEX ON product_variant (product_id);
CREATE INDEX ON country (region_id);
CREATE INDEX ON shipping_option (region_id);
CREATE INDEX ON payment (payment_collection_id);
CREATE INDEX ON order_item (order_id);
