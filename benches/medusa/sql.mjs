// Changes that never reach Medusa: SQL by another program. mcache-watch has to notice them. Each is a name and a
// statement, made from the world (world.mjs) and a number of this run.
const text = (value) => `'${String(value).replaceAll("'", "''")}'`

export const SQL = [
  ["psql: product title", (w, n) => `UPDATE product SET title = ${text(`By SQL ${n}`)} WHERE id = ${text(w.product)}`],
  ["psql: product metadata", (w, n) => `UPDATE product SET metadata = jsonb_build_object('run', ${text(n)}) WHERE id = ${text(w.product)}`],
  ["psql: product withdrawn", (w) => `UPDATE product SET status = 'draft' WHERE id = ${text(w.product2)}`],
  ["psql: product published", (w) => `UPDATE product SET status = 'published' WHERE id = ${text(w.product2)}`],
  ["psql: product marked as deleted", (w) => `UPDATE product SET deleted_at = now() WHERE id = ${text(w.product2)}`],
  ["psql: product restored", (w) => `UPDATE product SET deleted_at = NULL WHERE id = ${text(w.product2)}`],
  ["psql: all titles at once", (_, n) => `UPDATE product SET title = title || ${text(` ${n % 100}`)}`],
  ["psql: product inserted", (w, n) => `
    WITH made AS (INSERT INTO product (id, title, handle, status, discountable) VALUES (${text(`prod_sql${n}`)}, ${text(`aaa new ${n}`)}, ${text(`sql-${n}`)}, 'published', true) RETURNING id)
    INSERT INTO product_sales_channel (product_id, sales_channel_id, id) SELECT id, ${text(w.channel)}, ${text(`prodsc_sql${n}`)} FROM made`],
  ["psql: product of a collection", (w) => `UPDATE product SET collection_id = ${text(w.emptyCollection)} WHERE id = ${text(w.product)}`],
  ["psql: product into a category", (w) => `INSERT INTO product_category_product (product_id, product_category_id) VALUES (${text(w.product)}, ${text(w.emptyCategory)}) ON CONFLICT DO NOTHING`],
  ["psql: product out of a category", (w) => `DELETE FROM product_category_product WHERE product_category_id = ${text(w.emptyCategory)}`],
  ["psql: tag put on", (w) => `INSERT INTO product_tags (product_id, product_tag_id) VALUES (${text(w.product)}, ${text(w.tag)}) ON CONFLICT DO NOTHING`],
  ["psql: tag taken off", (w) => `DELETE FROM product_tags WHERE product_tag_id = ${text(w.tag)}`],
  ["psql: tag renamed", (w, n) => `UPDATE product_tag SET value = ${text(`sql-${n}`)} WHERE id = ${text(w.tag)}`],
  ["psql: variant title", (w, n) => `UPDATE product_variant SET title = ${text(`By SQL ${n}`)} WHERE id = ${text(w.variant)}`],
  ["psql: prices", (w, n) => `
    UPDATE price SET amount = ${20 + (n % 50)}, raw_amount = jsonb_build_object('value', ${text(20 + (n % 50))}, 'precision', 20)
    WHERE price_set_id IN (SELECT price_set_id FROM product_variant_price_set WHERE variant_id = ${text(w.variant)})`],
  ["psql: stock", (w, n) => `
    UPDATE inventory_level SET stocked_quantity = ${3000 + (n % 500)}, raw_stocked_quantity = jsonb_build_object('value', ${text(3000 + (n % 500))}, 'precision', 20)
    WHERE inventory_item_id = ${text(w.item)} AND location_id = ${text(w.location)}`],
  ["psql: collection title", (w, n) => `UPDATE product_collection SET title = ${text(`By SQL ${n}`)} WHERE id = ${text(w.collection)}`],
  ["psql: category name", (w, n) => `UPDATE product_category SET name = ${text(`By SQL ${n}`)} WHERE id = ${text(w.category)}`],
  ["psql: type renamed", (w, n) => `UPDATE product_type SET value = ${text(`sql-${n}`)} WHERE id = ${text(w.type)}`],
  ["psql: channel of a product taken away", (w) => `UPDATE product_sales_channel SET deleted_at = now() WHERE product_id = ${text(w.product2)}`],
  ["psql: channel of a product given back", (w) => `UPDATE product_sales_channel SET deleted_at = NULL WHERE product_id = ${text(w.product2)}`],
  ["psql: region name", (w, n) => `UPDATE region SET name = ${text(`By SQL ${n}`)} WHERE id = ${text(w.region)}`],
  ["psql: region's country", (w) => `UPDATE region_country SET display_name = display_name || '.' WHERE region_id = ${text(w.region)}`],
  ["psql: tax rate", (w, n) => `UPDATE tax_rate SET rate = ${5 + (n % 9)} WHERE id = ${text(w.taxRate)}`],
  ["psql: shipping option name", (w, n) => `UPDATE shipping_option SET name = ${text(`By SQL ${n}`)} WHERE id = ${text(w.shippingOption)}`],
  ["psql: currency name", (_, n) => `UPDATE currency SET name = ${text(`Euro ${n}`)} WHERE code = 'eur'`],
  ["psql: return reason", (_, n) => `INSERT INTO return_reason (id, value, label) VALUES (${text(`rr_sql${n}`)}, ${text(`sql-${n}`)}, 'By SQL')`],
]
