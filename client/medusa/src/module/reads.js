"use strict"
/**
 * What a query read on its way: one record for each call of a module, with the tags that make it right again.
 *
 * A query over several modules is run as one read of each module, joined in the process. Writing down those reads shows
 * everything the result was made from, also where nothing was found: a list without rows, a link that leads nowhere, a
 * filter over another type.
 */
const { IDS, one, any, coming, cascade, tagsOfRows } = require("./tags")

/** Names in filters that are not fields. */
const LOGICAL = new Set(["$and", "$or", "$not"])
/** Reads of so many ids at most are told apart by id: a list of more is a list. */
const IDS_MAX = 200
/** Where fields lead that the schema leaves out; null: nowhere that the read's own tags do not cover. */
const BESIDE_THE_SCHEMA = {
  "PriceSet.calculated_price": null,
  "ShippingOption.provider": { type: "FulfillmentProvider", isList: false },
}
/** Types of the pricing module that have events but no place in the schema. */
const PRICING = ["PriceRule", "PriceListRule", "PriceSet", "Price", "PriceList", "PricePreference"]

class Read {
  constructor(service, type) {
    this.service = service
    /** The type at the top; undefined where the schema does not name it. */
    this.type = type
    /** Types that the read depends on. @type {Set<string>} */
    this.types = new Set(type ? [type] : [])
    /** @type {Set<string>} */
    this.tags = new Set()
    /** Why it cannot be told what the read depends on. @type {string | undefined} */
    this.unclear = type ? undefined : `the schema does not name what ${service} returns`
    /** Whether prices were computed: they also depend on the time. */
    this.isPriced = false
  }

  /**
   * The rows that the module returned: with their relations, and with ids also where the query did not ask for them. A
   * row of a known type without an id stands for any row of its type.
   */
  addRows(schema, rows, type = this.type, seen = new Set()) {
    if (!rows || typeof rows !== "object" || !type) return
    if (Array.isArray(rows)) {
      for (const row of rows) this.addRows(schema, row, type, seen)
      return
    }
    // Rows may lead back to those they came from.
    if (seen.has(rows)) return
    seen.add(rows)
    if (!IDS.has(typeof rows.id)) this.tags.add(any(type))
    else {
      this.tags.add(one(type, rows.id))
      // The name that its events have, should the schema call it otherwise.
      const other = schema.typeOfId(rows.id)
      if (other && other !== type) this.tags.add(one(other, rows.id))
    }
    for (const field of Object.keys(rows)) {
      const value = rows[field]
      if (value === null || typeof value !== "object") continue
      const relation = relationOf(schema, type, field)
      if (relation) this.addRows(schema, value, relation.type, seen)
    }
  }
}

const relationOf = (schema, type, field) => schema.relation(type, field) ?? BESIDE_THE_SCHEMA[`${type}.${field}`]

/** So many ids of one type at most are told apart in the tags of a result, and so many tags are carried at most. */
const IDS_OF_A_TYPE = 300
const TAGS_MAX = 800

/** Where there are too many ids, any row of the type has to do. */
function bounded(tags) {
  const byType = new Map()
  for (const tag of tags) {
    const type = tag.slice(0, tag.indexOf(":"))
    if (!byType.has(type)) byType.set(type, [])
    byType.get(type).push(tag)
  }
  let count = tags.size
  for (const [type, own] of [...byType].sort(([, one], [, other]) => other.length - one.length)) {
    if (own.length <= IDS_OF_A_TYPE && count <= TAGS_MAX) break
    for (const tag of own) tags.delete(tag)
    tags.add(any(type)).add(coming(type)).add(cascade(type))
    count = tags.size
  }
  return tags
}

/** The type of the rows that a service returns. A link that has no type in the schema has events of its name. */
function typeOf(schema, expand, relationship) {
  const { serviceConfig } = expand
  const service = serviceConfig.serviceName
  if (schema.links.has(service)) return expand.entity || serviceConfig.entity || schema.typesOf(service)[0]
  const suffix = relationship?.args?.methodSuffix ?? serviceConfig.args?.methodSuffix
  const type = (suffix && schema.named(service, suffix)) ?? relationship?.entity ?? (expand.entity || serviceConfig.entity)
  return schema.has(type) ? type : undefined
}

/** What the data fetcher asks a module for. */
function describe(schema, { expand, keyField, ids, relationship }) {
  const { serviceConfig } = expand
  const service = serviceConfig.serviceName
  const read = new Read(service, typeOf(schema, expand, relationship))
  if (!read.type) return read
  const args = new Map((expand.args ?? []).map(({ name, value }) => [name, value]))
  const filters = { ...args.get("filters") }
  // By id, as a relation's target or by a filter.
  const asked = keyField === "id" && ids !== undefined && ids !== null ? ids : filters.id
  const list = typeof asked === "string" ? [asked] : asked
  const isById = Array.isArray(list) && list.length <= IDS_MAX && list.every((id) => typeof id === "string")
  const filtered = Object.keys(filters).filter((name) => !(isById && name === "id"))
  if (isById) {
    for (const id of list) read.tags.add(one(read.type, id))
    read.tags.add(cascade(read.type))
  } else read.tags.add(any(read.type))
  for (const name of filtered) addFilter(schema, read, read.type, name, filters[name])
  addExpands(schema, read, read.type, expand.expands ?? {})
  if (service === "pricing") {
    read.isPriced = true
    for (const other of new Set([...PRICING, ...schema.typesOf(service)])) addWhole(read, other)
  }
  // Sorted by another type's field, or by one of its own.
  for (const name of Object.keys(args.get("order") ?? {})) addFilter(schema, read, read.type, name, undefined)
  return read
}

function addWhole(read, type) {
  read.types.add(type)
  read.tags.add(any(type))
}

/** A filter over a field of the row itself is covered by the row's own tags; one over another type by that type's. */
function addFilter(schema, read, type, name, value) {
  if (LOGICAL.has(name)) {
    for (const part of Array.isArray(value) ? value : [value]) {
      for (const [inner, of] of Object.entries(part ?? {})) addFilter(schema, read, type, inner, of)
    }
    return
  }
  if (name === "q") {
    // Free text is looked for in other types of the module as well.
    for (const other of schema.around(type)) addWhole(read, other)
    return
  }
  const relation = schema.relation(type, name)
  if (!relation) return
  addWhole(read, relation.type)
  // Rows of a list enter it through a table of their own, which belongs to both.
  if (value && typeof value === "object" && !Array.isArray(value)) {
    for (const [inner, of] of Object.entries(value)) addFilter(schema, read, relation.type, inner, of)
  }
}

function addExpands(schema, read, type, expands) {
  for (const [name, expand] of Object.entries(expands)) {
    const relation = relationOf(schema, type, name)
    if (!relation) {
      if (relation !== null && read.service !== "pricing" && !schema.isScalar(type, name)) read.unclear ??= `the schema does not say where ${type}.${name} leads`
      continue
    }
    read.types.add(relation.type)
    if (!relation.isList) read.tags.add(cascade(relation.type))
    else if (schema.isOwned(type, name)) read.tags.add(coming(relation.type)).add(cascade(relation.type))
    else read.tags.add(any(relation.type))
    for (const { name: arg, value } of expand?.args ?? []) {
      if (arg !== "filters" && arg !== "context") continue
      if (value && typeof value === "object") {
        // What is filtered by is not followed further: any change of what stands there counts.
        read.tags.add(any(relation.type))
        for (const [inner, of] of Object.entries(value)) addFilter(schema, read, relation.type, inner, of)
      }
    }
    addExpands(schema, read, relation.type, expand?.expands ?? {})
  }
}

/** The rows in what a module's method or the data fetcher returned. */
function rowsOf(result) {
  if (Array.isArray(result) && result.length === 2 && Array.isArray(result[0]) && typeof result[1] === "number") return result[0]
  return result?.rows ?? result
}

/** The tags of a result: those of its reads, or of the rows it holds if it was not read through a query. */
function tagsOf(schema, reads, data, { isPrecise = true } = {}) {
  const tags = new Set()
  for (const read of reads) {
    for (const tag of read.tags) tags.add(tag)
    // Medusa decided that it is cached, so every change of a type that the service returns has to clear it.
    if (read.unclear) for (const type of schema.typesOf(read.service)) tags.add(any(type))
    if (!isPrecise) for (const type of read.types) tags.add(any(type))
  }
  if (reads.length === 0) tagsOfRows(data?.data ?? data?.rows ?? data, undefined, schema, tags)
  return [...bounded(tags)]
}

module.exports = { describe, tagsOf, rowsOf, bounded, Read, PRICING }
