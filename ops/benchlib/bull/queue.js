// What the worker and the producer share.
'use strict';

const { URL } = require('url');

const url = new URL(process.env.BENCH_URL);

module.exports = {
  name: 'bench',
  connection: { host: url.hostname, port: Number(url.port) },
  nowNs: () => Number(process.hrtime.bigint()),
  pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};
