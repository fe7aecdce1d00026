"use strict"
/**
 * What Medusa's schema says about types: which module owns a type, what its fields lead to, which ids begin how. Types
 * are looked up, never guessed from the shape of a row.
 */

/** The object type behind lists and non-nulls, and whether there is a list. */
function unwrap(type) {
  let isList = false
  for (; type?.ofType; type = type.ofType) if (String(type).replace(/!$/, "").startsWith("[")) isList = true
  return { type, isList }
}

const isObjectType = (type) => typeof type?.getFields === "function" && typeof type.getInterfaces === "function"

function plurals(name) {
  const all = [`${name}s`, `${name}es`, name]
  if (name.endsWith("y")) all.push(`${name.slice(0, -1)}ies`)
  if (name.endsWith("s")) all.push(name)
  return all
}

/** List relations whose rows never move to another parent. */
const OWNED = new Set([
  "Product.variants",
  "Product.images",
  "ProductOption.values",
  "InventoryItem.location_levels",
  "ServiceZone.geo_zones",
  "ShippingOption.rules",
  "TaxRegion.tax_rates",
])

class Schema {
  /**
   * @param {{ getTypeMap(): Record<string, any> }} schema of graphql
   * @param {any[]} joinerConfigs of all modules and links
   */
  constructor(schema, joinerConfigs) {
    /** @type {Map<string, Map<string, { type: string, isList: boolean }>>} */
    this.relations = new Map()
    /** @type {Map<string, Set<string>>} */
    this.scalars = new Map()
    for (const [name, type] of Object.entries(schema.getTypeMap())) {
      if (!isObjectType(type) || name.startsWith("__")) continue
      const relations = new Map()
      const scalars = new Set()
      for (const [field, { type: declared }] of Object.entries(type.getFields())) {
        const target = unwrap(declared)
        if (isObjectType(target.type)) relations.set(field, { type: target.type.name, isList: target.isList })
        else scalars.add(field)
      }
      this.relations.set(name, relations)
      this.scalars.set(name, scalars)
    }
    /** Which module defines a type. @type {Map<string, string>} */
    this.ownerOf = new Map()
    /** @type {Map<string, string>} */
    this.prefixes = new Map()
    /** Service name of a link: the services it connects. @type {Map<string, string[]>} */
    this.links = new Map()
    for (const config of joinerConfigs) {
      if (!config) continue
      const defined = String(config.schema ?? "").matchAll(/(^|\n)\s*type\s+(\w+)/g)
      for (const [, , name] of defined) if (!this.ownerOf.has(name)) this.ownerOf.set(name, config.serviceName)
      for (const [prefix, name] of Object.entries(config.idPrefixToEntityName ?? {})) this.prefixes.set(prefix, name)
      if (config.isLink) {
        const services = (config.relationships ?? []).map((relationship) => relationship.serviceName)
        this.links.set(config.serviceName, services)
      }
    }
    /** By service and plural name, as methods are named: `ProductVariants`. @type {Map<string, string>} */
    this.byPlural = new Map()
    for (const [name, owner] of this.ownerOf) for (const plural of plurals(name)) this.byPlural.set(`${owner}.${plural}`, name)
  }

  has(type) {
    return this.relations.has(type)
  }

  /** Where a field leads: a type, or undefined for a scalar and for what the schema does not know. */
  relation(type, field) {
    return this.relations.get(type)?.get(field)
  }

  isScalar(type, field) {
    return Boolean(this.scalars.get(type)?.has(field))
  }

  /** The type that methods of a service call so. */
  named(service, plural) {
    return this.byPlural.get(`${service}.${plural}`)
  }

  typesOf(service) {
    return [...this.ownerOf].filter(([, owner]) => owner === service).map(([type]) => type)
  }

  /**
   * Whether a row of a list relation belongs to its parent for good: then it comes into the list only by being created.
   * The schema does not say so (a product has one type, and may get another), so these are listed.
   */
  isOwned(type, field) {
    return OWNED.has(`${type}.${field}`)
  }

  /** The type of a row by the beginning of its id. */
  typeOfId(id) {
    if (typeof id !== "string") return undefined
    const at = id.indexOf("_")
    return at > 0 ? this.prefixes.get(id.slice(0, at)) : undefined
  }

  /** Types of the same module that a type leads to, directly or through others, and itself. */
  around(type) {
    const owner = this.ownerOf.get(type)
    const found = new Set([type])
    for (const next of found) {
      for (const relation of this.relations.get(next)?.values() ?? []) {
        if (this.ownerOf.get(relation.type) === owner) found.add(relation.type)
      }
    }
    return [...found]
  }
}

module.exports = { Schema, unwrap }
