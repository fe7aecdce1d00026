"use strict"
/**
 * A small shop in place of Medusa: a schema, modules that keep rows in memory, and a query that joins them and caches
 * the way Medusa's does. Only what the caching module meets of Medusa is there.
 */
const { EventEmitter } = require("node:events")

const scalar = (name) => ({ name, toString: () => name })
const list = (type) => ({ ofType: type, toString: () => `[${type}]` })

/** graphql's types from a short form: `{ Product: { title: "String", variants: "[ProductVariant]" } }`. */
function schemaOf(types) {
  const map = {}
  for (const name of Object.keys(types)) {
    map[name] = { name, toString: () => name, getInterfaces: () => [] }
  }
  for (const [name, fields] of Object.entries(types)) {
    const declared = Object.entries(fields).map(([field, text]) => {
      const inner = text.replace(/[[\]]/g, "")
      const type = map[inner] ?? scalar(inner)
      return [field, { type: text.startsWith("[") ? list(type) : type }]
    })
    map[name].getFields = () => Object.fromEntries(declared)
  }
  return { getTypeMap: () => map }
}

const TYPES = {
  Product: {
    id: "ID", title: "String", status: "String", collection_id: "String", variants: "[ProductVariant]",
    collection: "ProductCollection", categories: "[ProductCategory]",
  },
  ProductVariant: { id: "ID", title: "String", product_id: "String", product: "Product" },
  ProductCollection: { id: "ID", title: "String", products: "[Product]" },
  ProductCategory: { id: "ID", name: "String", products: "[Product]" },
  PriceSet: { id: "ID" },
  PriceList: { id: "ID", starts_at: "String", ends_at: "String" },
  Region: { id: "ID", name: "String" },
  Cart: { id: "ID", region_id: "String", region: "Region" },
  InventoryItem: { id: "ID", sku: "String", location_levels: "[InventoryLevel]" },
  InventoryLevel: { id: "ID", inventory_item: "InventoryItem" },
}

const config = (serviceName, types, idPrefixToEntityName = {}, more = {}) => ({
  serviceName,
  schema: types.map((type) => `type ${type} {\n id: ID\n}`).join("\n"),
  idPrefixToEntityName,
  ...more,
})

const CONFIGS = [
  config("product", ["Product", "ProductVariant", "ProductCollection", "ProductCategory"], {
    prod: "Product", variant: "ProductVariant", pcol: "ProductCollection", pcat: "ProductCategory",
  }),
  config("pricing", ["PriceSet", "PriceList"], { pset: "PriceSet", plist: "PriceList" }),
  config("region", ["Region"], { reg: "Region" }),
  config("cart", ["Cart"], { cart: "Cart" }),
  config("inventory", ["InventoryItem", "InventoryLevel"], { iitem: "InventoryItem", ilev: "InventoryLevel" }),
  config("productCartLink", [], {}, { isLink: true, relationships: [{ serviceName: "product" }, { serviceName: "cart" }] }),
]

class Bus extends EventEmitter {
  subscribe(name, subscriber) {
    this.on(name, subscriber)
  }

  addInterceptor(interceptor) {
    this.interceptor = interceptor
  }

  /** As Medusa's: no caller waits for it. */
  tell(name, data) {
    this.emit("*", { name, data })
    this.interceptor?.({ name, data })
  }
}

/** One module over rows in memory. A write may be silent or send its event. */
class Rows {
  constructor(bus) {
    this.bus = bus
    this.reads = 0
    this.products = new Map()
    this.beforeReply = async () => {}
  }

  async listProducts(filters = {}) {
    this.reads += 1
    const found = [...this.products.values()].filter((row) => {
      const ids = filters.id === undefined ? [row.id] : [filters.id].flat()
      return ids.includes(row.id) && (filters.status === undefined || filters.status === row.status)
    })
    const copy = JSON.parse(JSON.stringify(found))
    await this.beforeReply()
    return copy
  }

  async createProducts(input, { silent = false } = {}) {
    this.products.set(input.id, { ...input })
    if (!silent) this.bus.tell("product.created", { id: input.id })
    return input
  }

  async updateProducts(id, change, { silent = false } = {}) {
    Object.assign(this.products.get(id), change)
    if (!silent) this.bus.tell("product.updated", { id })
    return this.products.get(id)
  }

  async updateProductCategories(id, change) {
    for (const one of change.product_ids ?? []) this.products.get(one).category = id
    return { id }
  }
}

/** Classes as @medusajs/query exports them; fresh ones for each shop. */
function queryClasses(shop) {
  class ModuleDataFetcher {
    async fetch(expand, keyField, ids) {
      const filters = { ...expand.args?.find(({ name }) => name === "filters")?.value }
      if (ids) filters[keyField] = ids
      if (expand.serviceConfig.serviceName === "product") return { data: await shop.rows.listProducts(filters) }
      const data = shop.others[expand.entity] ?? []
      shop.onRead?.()
      return { data }
    }
  }
  class Query {
    async graph(input, options) {
      const enabled = options?.cache?.enable
      if (!enabled) return await this.run(input)
      const key = options.cache.key ?? (await shop.caching.computeKey({ input }))
      const { tags, computeAutomaticTags, autoInvalidate } = options.cache
      const found = await shop.caching.get({ key, tags })
      if (found) return found
      const data = await this.run(input)
      shop.stored = shop.caching.set({ key, data, tags, computeAutomaticTags, options: { autoInvalidate } })
      shop.stored.catch(() => {})
      return data
    }

    async index(input, options) {
      return await this.graph(input, { ...options, initialData: [] })
    }

    async query(input) {
      return (await this.run(input)).data
    }

    async run({ entity, filters = {}, expands, nested }) {
      const services = { Product: "product", Region: "region", Cart: "cart", PriceSet: "pricing", Unknown: "product" }
      const expand = {
        entity,
        serviceConfig: { serviceName: services[entity], entity, args: {} },
        args: [{ name: "filters", value: filters }],
        expands,
      }
      const { data } = await new ModuleDataFetcher().fetch(expand, "id", undefined)
      if (nested) await this.graph(nested, { cache: { enable: true } })
      return { data }
    }
  }
  return { Query, ModuleDataFetcher }
}

module.exports = { schemaOf, TYPES, CONFIGS, Bus, Rows, queryClasses }
