"use strict"
/**
 * Where the module meets Medusa's code beyond the caching interface: requests are told apart, queries and the reads of
 * modules within them are seen, writes are noticed. All of it is set up once, when the application starts; each tap can
 * be left out.
 */
const http = require("node:http")
const { createRequire } = require("node:module")
const { current, isWhole, inRequest, inQuery } = require("./context")
const { describe, rowsOf, Read } = require("./reads")
const { watch, WATCHED } = require("./writes")

const TAPPED = Symbol.for("medusa-mcache.tapped")

/** @medusajs/query is a dependency of packages of the framework, not of ours; it is found from there. */
function findQuery() {
  for (const path of [["@medusajs/framework/utils"], ["@medusajs/framework/utils", "@medusajs/framework/modules-sdk"], ["@medusajs/framework/utils", "@medusajs/modules-sdk"]]) {
    try {
      let from = createRequire(__filename)
      for (const step of path) from = createRequire(from.resolve(step))
      return from("@medusajs/query")
    } catch {
      // The next one.
    }
  }
  return undefined
}

/** Every request runs in a scope that says whether it is one of the store. */
function tapRequests() {
  const { emit } = http.Server.prototype
  if (emit[TAPPED]) return
  function tapped(event, request, ...rest) {
    if (event !== "request") return emit.call(this, event, request, ...rest)
    const isStore = /^\/store(\/|\?|$)/.test(request.url ?? "")
    return inRequest(isStore, () => emit.call(this, event, request, ...rest), rest[0])
  }
  tapped[TAPPED] = true
  http.Server.prototype.emit = tapped
}

/** Whom the tapped queries ask; there is one caching module in a process. @type {any} */
let module_

/** @param {{ graph: Function, remote: Function, schema: any } | undefined} module */
function serveQueriesBy(module) {
  module_ = module
}

/** One that ends does not end another that was started meanwhile. */
function stopServingBy(module) {
  if (module_ === module) module_ = undefined
}

/**
 * Queries run in a scope that writes down what they read. Medusa binds its query functions when they are made, before
 * the application starts; so this is done when the module is loaded, and takes effect when there is a module to ask.
 * @param {any} query the exports of @medusajs/query
 */
function tapQueries({ Query, ModuleDataFetcher }) {
  if (Query.prototype[TAPPED]) return
  Query.prototype[TAPPED] = true
  for (const method of ["graph", "index"]) {
    const original = Query.prototype[method]
    Query.prototype[method] = function tapped(input, options) {
      if (!module_) return original.call(this, input, options)
      return inQuery({ method, input, options }, (scope) =>
        module_.graph(scope, options, (withOptions) => original.call(this, input, withOptions)),
      )
    }
  }
  const original = Query.prototype.query
  Query.prototype.query = function tapped(input, options) {
    if (!module_) return original.call(this, input, options)
    return inQuery({ method: "query", input, options }, (scope) =>
      module_.remote(scope, () => original.call(this, input, options)),
    )
  }
  const { fetch } = ModuleDataFetcher.prototype
  ModuleDataFetcher.prototype.fetch = function tapped(expand, keyField, ids, relationship) {
    const scope = current()
    if (!scope?.query || !module_) return fetch.call(this, expand, keyField, ids, relationship)
    const read = describeOr(module_.schema, { expand, keyField, ids, relationship })
    scope.note(read)
    const answer = fetch.call(this, expand, keyField, ids, relationship)
    // Rows are of interest only to a result that will be stored.
    if (!isWhole(scope)) return answer
    return answer.then((found) => {
      read.addRows(module_.schema, rowsOf(found?.data))
      return found
    })
  }
}

/** What is asked for is the module's to refuse: here the query goes on. */
function describeOr(schema, asked) {
  try {
    return describe(schema, asked)
  } catch {
    return Object.assign(new Read(asked.expand?.serviceConfig?.serviceName, undefined), { unclear: "what it asks for is not understood" })
  }
}

/**
 * Links have events for all that happens to them; of modules the writing methods are watched.
 * @param {Map<string, any>} modules the services, by module
 */
function tapWrites(modules, schema, clear) {
  for (const [name, service] of modules) {
    if (!service || service[TAPPED] || !WATCHED.has(name) || schema.links.has(name)) continue
    service[TAPPED] = true
    watch(service, name, schema, clear)
  }
}

module.exports = { findQuery, tapRequests, tapQueries, serveQueriesBy, stopServingBy, tapWrites }
