// A JavaScript program for bench/collapse.py. Usage: node --perf-basic-prof busy.js SECONDS
const end = Date.now() + 1000 * Number(process.argv[2]);
const price = (n) => { let sum = 0; for (let i = 0; i < n; i++) sum += Math.sqrt(i); return sum; };
const index = (n) => { const table = {}; for (let i = 0; i < n; i++) table['item number ' + i] = { id: i }; return table; };
let sum = 0;
while (Date.now() < end) sum += price(20000) + JSON.parse(JSON.stringify(index(500))).hasOwnProperty('x');
