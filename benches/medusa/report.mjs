// report.mjs RESULTS OUT: the table of docs/results/medusa.md from all rounds that are there.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import os from "node:os"

const [results, out] = process.argv.slice(2)
const ARMS = ["off", "official", "module"]
/** What Medusa publishes for its cache: time with it by time without. */
const PUBLISHED = {
  "GET /store/products": 0.23, "GET /store/product-categories": 0.58, "GET /store/products/:id": 0.76, "GET /store/regions": 0.57,
  "POST /store/carts/:id/line-items": 0.61, "POST /store/carts/:id/shipping-methods": 0.67, "POST /store/carts/:id/promotions": 0.67,
  "GET /store/carts/:id": 0.67, "POST /store/carts/:id": 0.72, "POST /store/carts": 0.74, "POST /store/carts/:id/complete": 0.75,
  "GET /store/orders/:id": 0.68, "GET /store/shipping-options": 0.64, "POST /store/payment-collections": 0.67,
  "POST /store/payment-collections/:id/payment-sessions": 0.67,
}
const NAMES = { local: "database on the same machine", hop: "database a network hop away", order: "every visit orders", browse: "5 % of the visits order, 3 % of the requests are back-office writes", hot: "the same reads again and again" }

const median = (list) => [...list].sort((one, other) => one - other)[Math.floor(list.length / 2)]

/** Of the same request on two servers, one right after the other: less noise than the medians of each. */
const paired = (some, others) => median(some.slice(0, others.length).map((ms, i) => ms / others[i]))

function load(folder) {
  const samples = {}
  const meters = {}
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
    const arm = file.split(".")[0]
    const { samples: own, meter } = JSON.parse(readFileSync(`${folder}/${file}`, "utf8"))
    for (const [name, list] of Object.entries(own)) if (name !== "-") ((samples[name] ??= {})[arm] ??= []).push(...list.map(([ms]) => ms))
    ;(meters[arm] ??= []).push(meter)
  }
  const loads = readdirSync(folder).filter((name) => name.startsWith("round")).map((name) => readFileSync(`${folder}/${name}`, "utf8").trim().split(" ")[0]).filter(Boolean)
  return { samples, meters, loads }
}

const lines = [
  "# Medusa with and without the package",
  "",
  "Written by `make medusa-bench`. A Medusa 2.21 server with a seeded shop; the three servers take turns request by request, so that",
  `other programs on the machine disturb all three alike. Median milliseconds a request; ${os.cpus()[0]?.model.trim() ?? "unknown"}, ${os.cpus().length} cores, Node ${process.versions.node}.`,
  "The ratios are medians of pairs: the same request on two servers, one right after the other. *Published* is what Medusa publishes for its",
  "cache, time with it by time without.",
  "",
]
for (const name of existsSync(results) ? readdirSync(results).sort() : []) {
  const { samples, meters, loads } = load(`${results}/${name}`)
  const [distance, mix] = name.split("-")
  if (Object.keys(samples).length === 0) continue
  lines.push(`## ${NAMES[distance] ?? distance}; ${NAMES[mix] ?? mix}`, "", "| request | n | no cache | official | medusa-mcache | official / none | ours / none | published |", "|---|---|---|---|---|---|---|---|")
  for (const [request, of] of Object.entries(samples)) {
    if (!ARMS.every((arm) => of[arm]?.length)) continue
    const [none, official, ours] = ARMS.map((arm) => median(of[arm]))
    lines.push(`| ${request} | ${of.off.length} | ${none.toFixed(1)} | ${official.toFixed(1)} | ${ours.toFixed(1)} | ${paired(of.official, of.off).toFixed(2)} | ${paired(of.module, of.off).toFixed(2)} | ${PUBLISHED[request] ?? ""} |`)
  }
  const mean = (arm, what) => { const list = (meters[arm] ?? []).map((meter) => meter[what] ?? 0); return list.length ? (list.reduce((sum, one) => sum + one, 0) / list.length).toFixed(2) : "-" }
  if (loads.length > 0) lines.push("", `Rounds: ${loads.length}; load average of the machine at the end of each: ${loads.join(", ")}.`)
  lines.push("", "| a visit | no cache | official | medusa-mcache |", "|---|---|---|---|")
  for (const [label, what] of [["Node CPU, seconds", "node_s_flow"], ["Redis commands", "redis_cmds_flow"], ["Redis CPU, ms", "redis_cpu_ms_flow"]]) {
    lines.push(`| ${label} | ${ARMS.map((arm) => mean(arm, what)).join(" | ")} |`)
  }
  lines.push("")
}
for (const [file, title] of [["profile.md", "What each request sends to the database"], ["near.md", "What a near cache inside Node could save at most"]]) {
  const path = `${results}/../${file}`
  if (existsSync(path)) lines.push(`## ${title}`, "", readFileSync(path, "utf8").trim(), "")
}
writeFileSync(out, `${lines.join("\n")}\n`)
