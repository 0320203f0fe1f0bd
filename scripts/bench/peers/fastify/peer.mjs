// What a Node user would write first: Fastify that hands on page bytes from Redis, in a cluster of WORKERS.
import cluster from "node:cluster";
import Fastify from "fastify";
import { Redis } from "ioredis";

if (cluster.isPrimary) {
  for (let number = 0; number < Number(process.env.WORKERS); number++) cluster.fork();
} else {
  const cache = new Redis(process.env.REDIS_URL);
  const app = Fastify();
  app.get("/todos", async (request, reply) => {
    const limit = Number(request.query.limit || 0);
    const body = await cache.getBuffer(limit ? `todos:limit:${limit}` : "todos:all");
    return reply.type("application/json").send(body ?? Buffer.from("[]"));
  });
  await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
}
