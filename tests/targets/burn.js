// A labelled program to profile: burns in functions that node compiles while it runs.
// Use: node --perf-basic-prof burn.js     (writes /tmp/perf-PID.map; delete it afterwards)
function burnInJavascript(n) {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.sqrt(i) * (i % 7);
  return sum;
}

function loopForever() {
  for (;;) burnInJavascript(1e6);
}

loopForever();
