-- A catalogue like that of a middling shop; {products} and {stock} are filled in. Each step begins with its name.
---- regions, channels, keys
INSERT INTO region VALUES
    ('reg_eu', 'Europe', 'eur', 20), ('reg_us', 'United States', 'usd', 8), ('reg_uk', 'United Kingdom', 'gbp', 20);
INSERT INTO country VALUES ('de', 'Germany', 'reg_eu'), ('fr', 'France', 'reg_eu'), ('it', 'Italy', 'reg_eu'),
    ('es', 'Spain', 'reg_eu'), ('dk', 'Denmark', 'reg_eu'), ('se', 'Sweden', 'reg_eu'),
    ('us', 'United States', 'reg_us'), ('gb', 'United Kingdom', 'reg_uk');
INSERT INTO payment_provider VALUES ('pp_card'), ('pp_transfer');
INSERT INTO region_payment_provider SELECT r.id, p.id FROM region r, payment_provider p;
INSERT INTO stock_location VALUES ('sloc_north', 'North'), ('sloc_south', 'South');
INSERT INTO sales_channel VALUES ('sc_web', 'Web'), ('sc_outlet', 'Outlet');
INSERT INTO sales_channel_location VALUES
    ('sc_web', 'sloc_north'), ('sc_web', 'sloc_south'), ('sc_outlet', 'sloc_south');
INSERT INTO api_key VALUES ('apk_web', 'pk_storefront', 'Web shop', NULL), ('apk_old', 'pk_revoked', 'Old shop', now());
INSERT INTO api_key_sales_channel VALUES ('apk_web', 'sc_web'), ('apk_old', 'sc_web');
INSERT INTO shipping_option
    SELECT 'so_' || substr(r.id, 5) || '_' || o.type, r.id, o.name, o.type, o.amount
    FROM region r, (VALUES ('standard', 'Standard', 490), ('express', 'Express', 1290), ('pickup', 'Pick-up', 0))
        AS o (type, name, amount);
INSERT INTO promotion (id, code, percent)
    SELECT 'promo_' || n, 'SAVE' || n, 5 + n % 20 FROM generate_series(1, 50) AS n;
INSERT INTO promotion (id, code, percent, usage_limit) VALUES ('promo_once', 'ONCE', 50, 1);
INSERT INTO customer SELECT 'cus_' || n, 'shopper' || n || '@example.com', 'Shopper', n::text
    FROM generate_series(1, 1000) AS n;
---- collections and categories
INSERT INTO product_collection SELECT 'pcol_' || n, 'Collection ' || n, 'collection-' || n
    FROM generate_series(1, 20) AS n;
INSERT INTO product_category SELECT 'pcat_' || n, 'Department ' || n, 'department-' || n, n, true, NULL
    FROM generate_series(1, 6) AS n;
INSERT INTO product_category SELECT 'pcat_' || p || '_' || n, 'Department ' || p || ', aisle ' || n,
    'department-' || p || '-' || n, n, true, 'pcat_' || p FROM generate_series(1, 6) AS p, generate_series(1, 4) AS n;
---- products
INSERT INTO product
    SELECT 'prod_' || n, (ARRAY['Red', 'Blue', 'Warm', 'Light', 'Plain', 'Striped', 'Soft'])[1 + n % 7] || ' '
        || (ARRAY['shirt', 'jacket', 'scarf', 'jumper', 'coat', 'hat', 'bag', 'shoe'])[1 + n % 8] || ' ' || n,
        'product-' || n, 'Number ' || n || ' of our catalogue. ' || repeat('Made to last and easy to care for. ', 4),
        'https://images.example.com/' || n || '/thumbnail.jpg', CASE WHEN n % 50 = 0 THEN 'draft' ELSE 'published' END,
        'pcol_' || 1 + n % 20, timestamptz '2026-01-01' + n * interval '1 minute'
    FROM generate_series(1, {products}) AS n;
INSERT INTO product_in_category
    SELECT 'prod_' || n, 'pcat_' || 1 + n % 6 || '_' || 1 + n % 4 FROM generate_series(1, {products}) AS n;
INSERT INTO product_in_channel SELECT id, 'sc_web' FROM product;
INSERT INTO image SELECT 'img_' || n || '_' || i, 'prod_' || n, 'https://images.example.com/' || n || '/' || i || '.jpg', i
    FROM generate_series(1, {products}) AS n, generate_series(1, 3) AS i;
---- options and variants
INSERT INTO product_option SELECT 'opt_' || n || '_' || o.key, 'prod_' || n, o.title
    FROM generate_series(1, {products}) AS n, (VALUES ('s', 'Size'), ('c', 'Colour')) AS o (key, title);
INSERT INTO product_option_value SELECT 'optval_' || n || '_s' || s, 'opt_' || n || '_s', (ARRAY['S', 'M', 'L', 'XL'])[s]
    FROM generate_series(1, {products}) AS n, generate_series(1, 4) AS s;
INSERT INTO product_option_value
    SELECT 'optval_' || n || '_c' || c, 'opt_' || n || '_c', (ARRAY['Black', 'White', 'Green'])[c]
    FROM generate_series(1, {products}) AS n, generate_series(1, 3) AS c;
-- Eleven variants a product; every seventh product has all twelve.
INSERT INTO product_variant
    SELECT 'variant_' || n || '_' || v, 'prod_' || n,
        (ARRAY['S', 'M', 'L', 'XL'])[1 + v % 4] || ' / ' || (ARRAY['Black', 'White', 'Green'])[1 + v % 3],
        'SKU-' || n || '-' || v, v
    FROM generate_series(1, {products}) AS n, generate_series(1, 12) AS v WHERE v < 12 OR n % 7 = 0;
INSERT INTO variant_option_value
    SELECT v.id, 'optval_' || substr(v.product_id, 6) || '_' || o FROM product_variant v,
        LATERAL unnest(ARRAY['s' || 1 + v.rank % 4, 'c' || 1 + v.rank % 3]) AS o;
---- prices
INSERT INTO price SELECT 'price_' || substr(v.id, 9) || '_' || c.code, v.id, c.code,
        ((900 + substr(v.product_id, 6)::integer * 37 % 9000 + v.rank * 50) * c.rate)::bigint
    FROM product_variant v, (VALUES ('eur', 1.0), ('usd', 1.1), ('gbp', 0.9)) AS c (code, rate);
---- stock
INSERT INTO inventory_level (id, variant_id, location_id, stocked)
    SELECT 'ilev_' || substr(v.id, 9) || '_' || substr(l.id, 6), v.id, l.id, {stock} FROM product_variant v, stock_location l;
---- statistics for the planner
ANALYZE;
