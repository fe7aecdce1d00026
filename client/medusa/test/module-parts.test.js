"use strict"
/** Schema, tags, reads, writes, policy, prices: no server. */
const { test } = require("node:test")
const assert = require("node:assert")
const { schemaOf, TYPES, CONFIGS } = require("./support/shop")
const { Schema } = require("../src/module/schema")
const { tagsOfEvent, tagsOfRows, typeOfEvent } = require("../src/module/tags")
const { describe, tagsOf } = require("../src/module/reads")
const { tagsOfWrite, UNSURE } = require("../src/module/writes")
const { Policy, shapeOf } = require("../src/module/policy")
const { capped } = require("../src/module/prices")
const { keyOf, canonical } = require("../src/module/keys")
const { readExtensions, readModuleOptions } = require("../src/module/loader")

const schema = new Schema(schemaOf(TYPES), CONFIGS)

const read = (service, entity, { filters, expands, ids, keyField = "id", order } = {}) => {
  const args = [{ name: "filters", value: filters ?? {} }]
  if (order) args.push({ name: "order", value: order })
  return describe(schema, { expand: { entity, serviceConfig: { serviceName: service, entity, args: {} }, args, expands }, keyField, ids })
}
const touches = (carried, cleared) => cleared.some((tag) => carried.has(tag))

test("keys do not depend on the order of properties, but on that of lists", () => {
  assert.equal(keyOf({ a: 1, b: { c: [1, 2], d: "x" } }), keyOf({ b: { d: "x", c: [1, 2] }, a: 1 }))
  assert.notEqual(keyOf({ a: [1, 2] }), keyOf({ a: [2, 1] }))
  assert.match(keyOf({}), /^[0-9a-f]{32}$/)
  assert.equal(canonical({ b: new Date(0), a: null }), '{"a":null,"b":"1970-01-01T00:00:00.000Z"}')
})

test("the schema knows owners, plural names, ids and whose rows are whose", () => {
  assert.equal(schema.ownerOf.get("ProductVariant"), "product")
  assert.equal(schema.named("product", "ProductCategories"), "ProductCategory")
  assert.equal(schema.typeOfId("variant_1"), "ProductVariant")
  assert.equal(schema.typeOfId("x"), undefined)
  assert.ok(schema.isOwned("Product", "variants"))
  assert.ok(!schema.isOwned("ProductCollection", "products"), "a product may move to another collection")
  assert.ok(!schema.isOwned("Product", "collection"))
})

test("events have Medusa's names", () => {
  assert.equal(typeOfEvent("product-variant"), "ProductVariant")
  assert.equal(typeOfEvent("price_list"), "PriceList")
  assert.equal(typeOfEvent("LinkProductSalesChannel"), "LinkProductSalesChannel")
  assert.deepEqual(tagsOfEvent({ name: "product.updated", data: { id: "prod_1" } }, schema), ["Product:prod_1", "Product:list:*"])
  const several = tagsOfEvent({ name: "product.product.created", data: [{ id: ["a", "b"] }, { id: "c" }] }, schema)
  assert.deepEqual(several, ["Product:a", "Product:list:*", "Product:new", "Product:b", "Product:c"])
  const gone = tagsOfEvent({ name: "product.deleted", data: { id: "prod_1" } }, schema)
  assert.ok(gone.includes("ProductVariant:cascade"), "a product's variants go with it")
})

test("rows have tags by their place and their ids; what is unknown is not guessed", () => {
  const tags = new Set()
  tagsOfRows({ rows: [{ id: "p", variants: [{ id: "v" }], mystery: { id: "m", title: "t" } }] }.rows, "Product", schema, tags)
  assert.deepEqual([...tags], ["Product:p", "ProductVariant:v"])
})

test("an empty answer depends on what could come into it", () => {
  const carried = read("product", "Product", { filters: { status: "published" } }).tags
  assert.ok(touches(carried, tagsOfEvent({ name: "product.updated", data: { id: "prod_9" } }, schema)))
})

test("a page depends on its product, not on another one", () => {
  const page = read("product", "Product", { filters: { id: "prod_1", status: "published" }, expands: { variants: { fields: ["*"] } } })
  const rows = [{ id: "prod_1", variants: [{ id: "variant_1" }] }]
  page.addRows(schema, rows)
  const carried = new Set(tagsOf(schema, [page]))
  const event = (name, id) => tagsOfEvent({ name, data: { id } }, schema)
  assert.ok(touches(carried, event("product.updated", "prod_1")))
  assert.ok(touches(carried, event("product-variant.updated", "variant_1")))
  assert.ok(touches(carried, event("product-variant.created", "variant_2")))
  assert.ok(touches(carried, event("product.deleted", "prod_1")))
  assert.ok(!touches(carried, event("product.updated", "prod_2")))
  assert.ok(!touches(carried, event("product-variant.updated", "variant_9")))
  assert.ok(!touches(carried, event("product.created", "prod_3")))
  const whole = new Set(tagsOf(schema, [page], undefined, { isPrecise: false }))
  assert.ok(touches(whole, event("product-variant.updated", "variant_9")))
})

test("a page whose product does not exist yet depends on it", () => {
  const carried = read("product", "Product", { filters: { id: "prod_1" } }).tags
  assert.ok(touches(carried, tagsOfEvent({ name: "product.created", data: { id: "prod_1" } }, schema)))
})

test("a filter over another type depends on that type, however deep, and so does free text", () => {
  const change = tagsOfEvent({ name: "product-category.updated", data: { id: "pcat_1" } }, schema)
  assert.ok(touches(read("product", "Product", { filters: { categories: { id: "pcat_1" } } }).tags, change))
  assert.ok(touches(read("product", "Product", { filters: { $and: [{ $or: [{ categories: { name: "x" } }] }] } }).tags, change))
  assert.ok(touches(read("product", "Product", { filters: { q: "shirt" } }).tags, change))
  assert.ok(touches(read("product", "Product", { order: { collection: { title: "ASC" } } }).tags, ["ProductCollection:list:*"]))
})

test("rows of a list that both sides share depend on all rows of the type", () => {
  const page = read("product", "Product", { filters: { id: "prod_1" }, expands: { categories: {} } })
  assert.ok(page.tags.has("ProductCategory:list:*"))
})

test("rows that may move to another parent are depended on as a whole", () => {
  const page = read("product", "ProductCollection", { filters: { id: "pcol_1" }, expands: { products: {} } })
  assert.ok(touches(page.tags, tagsOfEvent({ name: "product.updated", data: { id: "prod_9" } }, schema)))
})

test("a relation selected without its id depends on all rows of its type", () => {
  const page = read("product", "Product", { filters: { id: "prod_1" }, expands: { collection: {} } })
  page.addRows(schema, [{ id: "prod_1", collection: { title: "x" } }])
  assert.ok(touches(page.tags, tagsOfEvent({ name: "product-collection.updated", data: { id: "pcol_1" } }, schema)))
})

test("a call's rows within rows have their tags, too", () => {
  const { describeCall } = require("../src/module/calls")
  const call = describeCall(schema, "product", "listProductVariants", [{ id: ["variant_1"] }, { relations: ["product"] }])
  call.addRows(schema, [{ id: "variant_1", product: { id: "prod_1" } }])
  assert.ok(touches(call.tags, tagsOfEvent({ name: "product.updated", data: { id: "prod_1" } }, schema)))
  assert.equal(describeCall(schema, "product", "listSomethingElse", [{}]), undefined)
})

test("a result of very many rows depends on their types instead", () => {
  const { bounded } = require("../src/module/reads")
  const tags = bounded(new Set(["Region:reg_1", ...Array.from({ length: 2_000 }, (_, n) => `Product:prod_${n}`)]))
  assert.ok(tags.size < 10 && tags.has("Product:list:*") && tags.has("Region:reg_1"))
})

test("what the schema does not know is unclear, and said", () => {
  assert.match(read("product", "Product", { expands: { mystery: {} } }).unclear, /Product\.mystery/)
  assert.match(read("product", "Nothing", {}).unclear, /does not name/)
})

test("a write without an event clears what it may have changed", () => {
  const write = (method, ...args) => new Set(tagsOfWrite(schema, "product", method, args, undefined))
  assert.ok(write("updateProducts", "prod_1", { title: "x" }).has("Product:prod_1"))
  assert.ok(!write("updateProducts", "prod_1", { title: "x" }).has("ProductCategory:list:*"))
  assert.ok(write("updateProductCategories", "pcat_1", { product_ids: ["prod_1"] }).has("Product:cascade"))
  assert.ok(write("updateProducts", { title: "old" }, { title: "x" }).has("Product:cascade"), "by a selector: any row")
  assert.ok(write("softDeleteProducts", ["prod_1"]).has("ProductVariant:cascade"))
  assert.ok(write("createProducts", [{ title: "x" }]).has("Product:new"))
  assert.ok(write("addSomethingOfItsOwn", "x").has("ProductVariant:list:*"), "not known: everything of the module")
  assert.equal(tagsOfWrite(schema, "product", "listProducts", [], undefined), undefined)
  assert.equal(tagsOfWrite(schema, "product", "retrieveProduct", [], undefined), undefined)
})

test("stock is told apart by item; where the item is not known, all of it is meant", () => {
  const known = new Set(tagsOfWrite(schema, "inventory", "createReservationItems", [[{ inventory_item_id: "iitem_1" }]], [{ id: "resitem_1" }]))
  assert.ok(known.has("InventoryItem:iitem_1") && !known.has(UNSURE) && !known.has("InventoryItem:cascade"))
  const unknown = new Set(tagsOfWrite(schema, "inventory", "deleteReservationItems", [["resitem_1"]], undefined))
  assert.ok(unknown.has(UNSURE))
})

test("only catalogue and configuration are cached beyond Medusa's choice", () => {
  const policy = new Policy({ schema, queries: true, reuse: true })
  assert.equal(policy.objection([read("product", "Product", {})]), undefined)
  assert.match(policy.objection([read("product", "Product", {}), read("cart", "Cart", {})]), /reads Cart of cart/)
  assert.match(policy.objection([read("productCartLink", "LinkProductCart", {})]), /links to cart/)
  assert.match(policy.objection([read("product", "Product", { expands: { mystery: {} } })]), /does not say/)
  assert.match(policy.objection([]), /nothing was read/)
})

test("a shape is a query without its values", () => {
  const one = shapeOf({ entity: "product", fields: ["b", "a"], filters: { id: "1" } })
  assert.equal(one, shapeOf({ entity: "product", fields: ["a", "b"], filters: { id: "2" } }))
  assert.notEqual(one, shapeOf({ entity: "product", fields: ["a", "b"], filters: { handle: "2" } }))
})

test("what is hardly read again is not stored, but now and then", () => {
  const policy = new Policy({ schema, queries: true, reuse: true })
  const shape = policy.shape({ entity: "product", fields: ["id"] })
  shape.objection = undefined
  shape.fills = 1000
  shape.hits = 3
  let stored = 0
  for (let n = 0; n < 100; n += 1) {
    shape.runs += 1
    if (policy.wants(shape, { isStore: true })) stored += 1
  }
  assert.equal(stored, 5)
  assert.ok(!policy.wants({ ...shape, hits: 900 }, { isStore: false }), "outside requests of the store: never")
})

test("a result with prices ends when a price list begins or ends", () => {
  const now = 1_000_000
  assert.equal(capped(3600, [], now, now), 3600)
  assert.equal(capped(3600, [now - 1_000], now, now), 3600)
  assert.equal(capped(3600, [now + 3_600_000 * 2], now, now), 3600)
  assert.ok(capped(3600, [now + 90_000, now + 10_000], now, now) < 10)
  assert.ok(capped(0, [now + 10_000], now, now) < 10, "no expiry becomes one")
})

test("prices that were read across the moment at which a list begins are not stored", () => {
  const now = 1_000_000
  assert.equal(capped(3600, [now - 1_000], now - 2_000, now), undefined)
  assert.equal(capped(3600, [now + 1], now, now), undefined, "as good as gone")
  assert.equal(capped(3600, [now - 5_000], now - 2_000, now), 3600)
})

test("options of the module", () => {
  assert.throws(() => readExtensions({ price: true }), /no extension "price"; there are queries/)
  assert.throws(() => readExtensions({ prices: "no" }), /extensions.prices must be true or false/)
  assert.equal(readExtensions({ prices: false }).prices, false)
  assert.equal(readModuleOptions({ ttl: 1, providers: [{ options: { redisUrl: "redis://h" } }] }).redisUrl, "redis://h")
  assert.throws(() => readModuleOptions({ providers: [{}, {}] }), /one provider/)
})
