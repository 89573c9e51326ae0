// BullMQ's tasks. Records have the layout of recorder.py: id, monotonic ns, pid, kind.
'use strict';

const fs = require('fs');
const { Worker } = require('bullmq');
const { name, connection, pause } = require('./queue.js');

const STARTED = 0;
const FINISHED = 1;
const slots = Number(process.env.BENCH_SLOTS || 100);
const BURN_MS = 10;
const recordFile = fs.openSync(process.env.BENCH_RECORDS, 'a');

function record(taskId, kind) {
  const entry = Buffer.alloc(24);
  entry.writeBigInt64LE(BigInt(taskId), 0);
  entry.writeBigInt64LE(process.hrtime.bigint(), 8);
  entry.writeInt32LE(process.pid, 16);
  entry.writeInt32LE(kind, 20);
  fs.writeSync(recordFile, entry);
}

function burn(loops) {
  let value = 1;
  for (let step = 0; step < loops; step++) value = (Math.imul(value, 1103515245) + 12345) & 0x7fffffff;
  return value;
}

// V8 compiles the loop: the steps that take CPython 10 ms would take it a fraction of one.
function calibrateBurn() {
  const loops = 3000000;
  let bestUs = Infinity;
  for (let attempt = 0; attempt < 5; attempt++) {
    const before = process.cpuUsage();
    burn(loops);
    bestUs = Math.min(bestUs, process.cpuUsage(before).user);
  }
  return Math.round((loops * BURN_MS * 1000) / bestUs);
}

const burnLoops = calibrateBurn();

async function run(job) {
  const { i, seconds } = job.data;
  if (job.name === 'noop') {
    record(i, FINISHED);
    return i;
  }
  record(i, STARTED);
  if (job.name === 'sleep') await pause(seconds * 1000);
  else burn(burnLoops);
  record(i, FINISHED);
  return i;
}

const options = { connection: { ...connection, maxRetriesPerRequest: null }, concurrency: slots };
if (process.env.BENCH_MODE === 'tuned') Object.assign(options, { lockDuration: 10000, stalledInterval: 10000 });

new Worker(name, run, options).on('error', () => {});
process.on('SIGTERM', () => process.exit(0));
