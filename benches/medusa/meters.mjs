// What a server used: processor time of its process and of its Redis, and how many commands that Redis carried out.
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"

const TICKS_PER_SECOND = 100

/** @param {{ pid: number, redis?: string }} of */
export function read({ pid, redis }) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ")
  const nodeSeconds = (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
  if (!redis) return { nodeSeconds, redisSeconds: 0, commands: 0 }
  const info = execFileSync("redis-cli", ["-p", redis, "info", "everything"], { encoding: "utf8", maxBuffer: 1 << 24 })
  const number = (name) => Number(new RegExp(`^${name}:([0-9.]+)`, "m").exec(info)?.[1] ?? 0)
  return { nodeSeconds, redisSeconds: number("used_cpu_sys") + number("used_cpu_user"), commands: number("total_commands_processed") }
}

/** What was used between two readings, a visit. */
export function between(before, after, visits) {
  const a = (name) => (after[name] - before[name]) / visits
  return {
    node_s_flow: Number(a("nodeSeconds").toFixed(3)),
    redis_cpu_ms_flow: Number((a("redisSeconds") * 1000).toFixed(2)),
    redis_cmds_flow: Number(a("commands").toFixed(1)),
  }
}
