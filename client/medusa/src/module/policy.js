"use strict"
/**
 * Which queries are cached beyond Medusa's own choice.
 *
 * Only inside requests of the store, and only queries whose every read is of catalogue or configuration: these are
 * never written by what a shopper does. Carts, orders, payments and customers are not among them: workflows write and
 * read them again, and their events go out at the end. What a query reads is not known beforehand, so a query of a new
 * shape runs once without the cache; from then on what it read decides. Each later result is judged again before it is
 * stored.
 */

/** Modules whose every type may be cached. */
const MODULES = new Set(["product", "pricing", "region", "store", "sales_channel", "currency", "tax", "stock_location", "api_key", "translation"])
/** Types of other modules that are configuration. */
const TYPES = new Set([
  "PaymentProvider",
  "ShippingOption",
  "ShippingOptionType",
  "ShippingOptionRule",
  "ShippingProfile",
  "ServiceZone",
  "GeoZone",
  "FulfillmentSet",
  "FulfillmentProvider",
])
const SHAPES_MAX = 2_000
/** Results of a shape that are stored before it is asked whether they are read again. */
const TRIALS = 50
/** Below so many reads for each stored result, storing costs more than it saves. */
const REUSE_MIN = 0.1
/** One in so many is stored nevertheless, to notice when that changes. */
const PROBE = 20

/** What a query is, without the values it is asked with. */
function shapeOf(query) {
  const q = query?.__value ?? query ?? {}
  const entity = q.entity ?? q.entryPoint ?? q.alias ?? q.service ?? Object.keys(q)[0]
  const fields = Array.isArray(q.fields) ? [...q.fields].sort().join(",") : JSON.stringify(q[entity]?.fields ?? q.fields ?? "")
  const filters = Object.keys(q.filters ?? q.variables?.filters ?? q[entity]?.__args?.filters ?? {}).sort().join(",")
  const page = q.pagination || q.variables?.take !== undefined ? " paged" : ""
  return `${entity} [${fields}] by (${filters})${page}`
}

class Shape {
  constructor(name) {
    this.name = name
    this.runs = 0
    this.hits = 0
    this.fills = 0
    this.refused = 0
    /** Why it is not cached; undefined: it is; null: not known yet. @type {string | undefined | null} */
    this.objection = null
    this.services = []
    this.tags = []
    this.isMedusas = false
    /** Whether what it returns cannot be stored at all. */
    this.isUnfit = false
  }

  get reuse() {
    return this.fills === 0 ? undefined : this.hits / this.fills
  }
}

class Policy {
  /** @param {{ schema: import("./schema").Schema, queries: boolean, reuse: boolean }} parts */
  constructor({ schema, queries, reuse }) {
    this.schema = schema
    this.queries = queries
    this.reuse = reuse
    /** @type {Map<string, Shape>} */
    this.shapes = new Map()
  }

  shape(query) {
    return this.named(shapeOf(query))
  }

  /** What is kept under a shape's name. */
  named(name) {
    let shape = this.shapes.get(name)
    if (shape) return shape
    if (this.shapes.size >= SHAPES_MAX) this.shapes.delete(this.shapes.keys().next().value)
    shape = new Shape(name)
    this.shapes.set(name, shape)
    return shape
  }

  /** Whether to look for a result of this shape in the cache. */
  wants(shape, scope) {
    return this.queries && scope.isStore && shape.objection === undefined && this.isReadAgain(shape)
  }

  /** Whether results of this shape are read again, as far as that can be told. */
  isReadAgain(shape) {
    if (!this.reuse || shape.fills < TRIALS || shape.reuse >= REUSE_MIN) return true
    return shape.runs % PROBE === 0
  }

  /** Judges a shape by what one of its queries read. */
  learn(shape, reads) {
    shape.services = [...new Set(reads.map(({ service }) => service))]
    shape.objection = this.objection(reads)
  }

  /** Why a result made from these reads is not to be cached beyond Medusa's choice. */
  objection(reads) {
    if (reads.length === 0) return "nothing was read through a module"
    for (const read of reads) {
      if (read.unclear) return read.unclear
      const link = this.schema.links.get(read.service)
      if (link) {
        const other = link.find((service) => !MODULES.has(service) && !this.#isConfiguration(service))
        if (other) return `${read.service} links to ${other}`
        continue
      }
      for (const type of read.types) {
        const owner = this.schema.ownerOf.get(type) ?? read.service
        if (!MODULES.has(owner) && !TYPES.has(type) && !this.schema.links.has(owner) && !type.startsWith("Link")) {
          return `it reads ${type} of ${owner}, which shoppers change`
        }
      }
    }
    return undefined
  }

  #isConfiguration(service) {
    return service === "payment" || service === "fulfillment"
  }
}

module.exports = { Policy, shapeOf, MODULES, TYPES }
