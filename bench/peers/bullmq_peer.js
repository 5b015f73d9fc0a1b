// BullMQ on Node: the same checks, the same calls. node bullmq_peer.js serve|work|load REDIS_URL [PORT | TASKS TARGET]
'use strict';

const http = require('http');
const { Queue, Worker } = require('bullmq');
const Redis = require('ioredis');

const OPEN = 200;
const TASK_BYTES = 200;
const [what, url, ...rest] = process.argv.slice(2);
const connect = () => new (Redis.Redis || Redis)(url, { maxRetriesPerRequest: null });

function answer(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

async function enqueue(store, queue, body, response) {
  const asked = JSON.parse(body);
  const client = asked.client_id;
  if (typeof client !== 'string' || !/^[A-Za-z0-9_-]{3,64}$/.test(client)) {
    return answer(response, 401, { error: 'invalid client_id' });
  }
  const stored = await store.get(`client_config:${client}`);
  if (stored === null) return answer(response, 401, { error: 'unknown client' });
  const limit = JSON.parse(stored).rate_limit.requests_per_min;
  const key = `ratelimit:${client}:${Math.floor(Date.now() / 60000)}`;
  const used = await store.incr(key);
  if (used === 1) await store.expire(key, 120);
  if (used > limit) return answer(response, 429, { error: 'rate limit exceeded' });
  const job = await queue.add('fire', asked.task);
  return answer(response, 201, { status: 'enqueued', task_id: job.id, client_id: client });
}

function serve(port) {
  const store = connect();
  const queue = new Queue('fire', { connection: connect() });
  http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      enqueue(store, queue, Buffer.concat(parts).toString(), response)
        .catch((error) => answer(response, 500, { error: String(error) }));
    });
  }).listen(port, '127.0.0.1');
}

function call(agent, task) {
  return new Promise((resolve, reject) => {
    const headers = { ...task.headers, 'Content-Length': Buffer.byteLength(task.body) };
    const request = http.request(task.url, { method: task.method, headers, agent }, (response) => {
      response.resume();
      response.on('end', () => (response.statusCode < 300 ? resolve() : reject(new Error(`${response.statusCode}`))));
    });
    request.on('error', reject);
    request.end(task.body);
  });
}

function work() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: OPEN });
  new Worker('fire', (job) => call(agent, job.data), { connection: connect(), concurrency: OPEN });
}

async function load(tasks, target) {
  const queue = new Queue('fire', { connection: connect() });
  const task = { url: `${target}/hook`, method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: '' };
  task.body = 'x'.repeat(TASK_BYTES - JSON.stringify(task).length);
  for (let left = tasks; left > 0; left -= 500) {
    await queue.addBulk(Array.from({ length: Math.min(left, 500) }, () => ({ name: 'fire', data: task })));
  }
  process.exit(0);
}

if (what === 'serve') serve(Number(rest[0]));
else if (what === 'load') load(Number(rest[0]), rest[1]);
else work();
