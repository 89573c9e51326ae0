// BullMQ's producer: the same actions, flags and output line as producer.py.
'use strict';

const { Queue, QueueEvents } = require('bullmq');
const { name, connection, nowNs, pause } = require('./queue.js');

const BULK_CHUNK = 1000;
const RESULT_MS = 20000;

function parse(words) {
  const flags = { task: 'noop', tasks: 20000, first: 0, cap: 30, warm: 8, bulk: 0 };
  for (let at = 1; at < words.length; at += 2) flags[words[at].slice(2)] = words[at + 1];
  for (const number of ['tasks', 'first', 'cap', 'warm', 'bulk']) flags[number] = Number(flags[number]);
  return { action: words[0], ...flags };
}

const options = parse(process.argv.slice(2));

function dataOf(i) {
  return options.seconds === undefined ? { i } : { i, seconds: Number(options.seconds) };
}

async function enqueue(queue) {
  const cpuBefore = process.cpuUsage();
  const begun = nowNs();
  const deadline = begun + options.cap * 1e9;
  const last = options.first + options.tasks;
  let sent = 0;
  for (let i = options.first; i < last && nowNs() <= deadline; ) {
    if (options.bulk) {
      const size = Math.min(BULK_CHUNK, last - i);
      await queue.addBulk(Array.from({ length: size }, (_, k) => ({ name: options.task, data: dataOf(i + k) })));
      i += size;
      sent += size;
    } else {
      await queue.add(options.task, dataOf(i));
      i += 1;
      sent += 1;
    }
  }
  const cpu = process.cpuUsage(cpuBefore);
  return { sent, seconds: (nowNs() - begun) / 1e9, cpu_s: (cpu.user + cpu.system) / 1e6 };
}

async function latency(queue) {
  const events = new QueueEvents(name, { connection });
  await events.waitUntilReady();
  for (let k = 0; k < options.warm; k++) {
    await (await queue.add('noop', { i: -1 - k })).waitUntilFinished(events, RESULT_MS);
  }
  await pause(1000);
  const figures = { before: [], sent: [], result: [], has_result: true };
  const deadline = nowNs() + options.cap * 1e9;
  for (let i = 0; i < options.tasks && nowNs() <= deadline; i++) {
    figures.before.push(nowNs());
    const job = await queue.add('noop', { i });
    figures.sent.push(nowNs());
    await job.waitUntilFinished(events, RESULT_MS);
    figures.result.push(nowNs());
  }
  return figures;
}

async function main() {
  const queue = new Queue(name, { connection });
  await queue.waitUntilReady();
  const figures = await (options.action === 'latency' ? latency : enqueue)(queue);
  process.stdout.write(`\nBENCH ${JSON.stringify(figures)}\n`, () => process.exit(0));
}

main();
