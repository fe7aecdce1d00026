"use strict"
/** Ports in front of a server, gone with the test. */
const net = require("node:net")

/**
 * A port of its own. `serve` gets each connection to it, and a function that makes the connection to the server: when
 * one of the two is closed, the other one is.
 * @returns {Promise<string>} its address
 */
async function startPort(t, serve) {
  const sockets = new Set()
  const kept = (socket) => {
    sockets.add(socket.on("error", () => {}))
    return socket
  }
  const listener = net.createServer((near) => {
    serve(kept(near), (port) => {
      const far = kept(net.connect(port, "127.0.0.1"))
      near.on("close", () => far.destroy())
      far.on("close", () => near.destroy())
      return far
    })
  })
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    listener.close()
  })
  return `redis://127.0.0.1:${listener.address().port}/0`
}

/**
 * A port that leads to a server: to another one from now on if `target` changes; `isHeld` says which connections get
 * no answer.
 */
async function startProxy(t, target, isHeld = () => false) {
  const found = { target, count: 0 }
  const url = await startPort(t, (near, connect) => {
    const number = (found.count += 1)
    if (isHeld(number)) return near.resume()
    const far = connect(found.target)
    near.pipe(far)
    far.pipe(near)
  })
  return Object.assign(found, { url })
}

module.exports = { startPort, startProxy }
