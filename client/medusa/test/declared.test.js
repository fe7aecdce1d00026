"use strict"
/** Types and README name what the code has: options with their defaults, extensions, counters. Files only. */
const { test } = require("node:test")
const assert = require("node:assert")
const fs = require("node:fs")
const path = require("node:path")
const { DEFAULTS } = require("../src/options")
const { EXTENSIONS } = require("../src/module/loader")
const { NAMES } = require("../src/counters")
const manifest = require("../package.json")

const read = (name) => fs.readFileSync(path.join(__dirname, "..", name), "utf8")

/** The names in an interface of a file of types. */
function namesIn(file, name) {
  const body = new RegExp(`interface ${name}\\b[^{]*\\{([^]*?)\\n\\}`).exec(read(file))?.[1]
  assert.ok(body, `${file} declares ${name}`)
  return [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, found]) => found).sort()
}

/** The rows of the README's tables whose first column is code: each name with the second column. */
function rowsOfReadme() {
  const rows = new Map()
  for (const [, names, second] of read("README.md").matchAll(/^\| (`\w+`(?:, `\w+`)*) \|([^|]*)\|/gm)) {
    for (const [, name] of names.matchAll(/`(\w+)`/g)) rows.set(name, second.trim())
  }
  return rows
}

test("the types name every option, and the README says each with its default", () => {
  const others = ["redisUrl", "redisOptions", "cluster", "clusterOptions"]
  assert.deepEqual(namesIn("provider.d.ts", "McacheOptions"), [...Object.keys(DEFAULTS), ...others].sort())
  const rows = rowsOfReadme()
  for (const name of others) assert.ok(rows.has(name), `README: ${name}`)
  for (const [name, value] of Object.entries(DEFAULTS)) assert.equal(rows.get(name)?.replaceAll("`", ""), String(value), `README: ${name}`)
})

test("the shop that is compiled against Medusa's types sets every option", () => {
  const shop = read("../../benches/medusa/types/shop.ts")
  for (const name of Object.keys(DEFAULTS)) assert.match(shop, new RegExp(`\\b${name}: `), name)
})

test("types and README name every extension", () => {
  assert.deepEqual(namesIn("index.d.ts", "McacheExtensions"), Object.keys(EXTENSIONS).sort())
  const rows = rowsOfReadme()
  for (const name of Object.keys(EXTENSIONS)) assert.ok(rows.has(name), `README: ${name}`)
})

test("the types name every counter", () => {
  assert.deepEqual(namesIn("provider.d.ts", "McacheStats"), [...NAMES, "owed", "open", "usable"].sort())
})

test("what is published is there, and only ours", () => {
  for (const name of manifest.files) assert.ok(fs.existsSync(path.join(__dirname, "..", name)), name)
  for (const entry of Object.values(manifest.exports)) {
    for (const file of typeof entry === "string" ? [entry] : Object.values(entry)) assert.ok(fs.existsSync(path.join(__dirname, "..", file)), file)
  }
  assert.equal(read("LICENSE").split("\n")[0], "MIT License")
  assert.doesNotMatch(read("README.md"), /\]\(\.\.\//, "a link out of the package leads nowhere once it is published")
})
