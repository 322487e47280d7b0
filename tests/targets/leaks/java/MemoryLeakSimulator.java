import java.lang.management.ManagementFactory;
import java.lang.management.OperatingSystemMXBean;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/** memory_leak_simulator in Java: options, output and rules as in native/simulator.c. */
public final class MemoryLeakSimulator {
    private static final long LIMIT_BYTES = 2L << 30;
    private static final Random random = new Random();
    private static final byte[][] requests = new byte[256][];
    private static final long started = System.nanoTime();
    private static double rate = 1e6;
    private static long leakedBytes, leakedBlocks, heldBytes, work;
    private static volatile boolean stopping;

    private static double elapsed() {
        return (System.nanoTime() - started) / 1e9;
    }

    private static long owed() {
        return (long) (rate * elapsed()) - leakedBytes;
    }

    private static void leaked(long n) {
        leakedBytes += n;
        leakedBlocks++;
        if (leakedBytes + heldBytes > LIMIT_BYTES) fail("would hold more than 2 GB; stopped");
    }

    private static void fail(String words) {
        System.err.println("memory_leak_simulator: " + words);
        Runtime.getRuntime().halt(2);
    }

    /** Background work: short-lived garbage and a few hundred buffers in use. */
    private static void churn(int n) {
        for (int i = 0; i < n; i++) requests[random.nextInt(256)] = new byte[32 + random.nextInt(1500)];
        work += n;
    }

    private static byte[] bytes(int low, int high) {
        return new byte[low + random.nextInt(high - low)];
    }

    // --- leaking ---

    private static final Map<Long, byte[]> byKey = new ConcurrentHashMap<>();

    private static void siteStaticMap() {
        byte[] value = bytes(100, 2000);
        byKey.put(random.nextLong(), value);
        leaked(value.length + 16 + 80);
    }

    private static final List<Object> kept = new ArrayList<>();

    private static void siteList() {
        byte[] value = bytes(100, 3000);
        kept.add(value);
        leaked(value.length + 20);
    }

    private static final ExecutorService workers = Executors.newFixedThreadPool(4, task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });

    /** Each task leaves a variable of its own in the thread of the pool that ran it. */
    private static void siteThreadLocal() {
        byte[] value = bytes(500, 4000);
        try {
            workers.submit(() -> {
                ThreadLocal<byte[]> local = new ThreadLocal<>();
                local.set(value);
                synchronized (kept) {
                    kept.add(local);
                }
            }).get();
        } catch (Exception broken) {
            fail(broken.toString());
        }
        leaked(value.length + 100);
    }

    private static void siteDirectBuffer() {
        int size = 16384 + random.nextInt(50000);
        ByteBuffer buffer = ByteBuffer.allocateDirect(size);
        for (int at = 0; at < size; at += 1024) buffer.put(at, (byte) 1);
        kept.add(buffer);
        leaked(size);
    }

    /** Never ended, and kept: 32 KiB of zlib's window and more in native memory each. */
    private static void siteInflater() {
        Inflater inflater = new Inflater();
        byte[] out = new byte[70000];
        try {
            inflater.setInput(compressed);
            inflater.inflate(out);
        } catch (java.util.zip.DataFormatException broken) {
            fail(broken.toString());
        }
        kept.add(inflater);
        leaked(40000);
    }

    private static void siteDeflater() {
        Deflater deflater = new Deflater();
        deflater.setInput(new byte[60000]);
        deflater.finish();
        deflater.deflate(new byte[1000]);
        kept.add(deflater);
        leaked(268000);
    }

    private static byte[] compressed;

    private static void compressOnce() {
        Deflater deflater = new Deflater(1);
        byte[] noise = new byte[60000], out = new byte[70000];
        random.nextBytes(noise);
        deflater.setInput(noise);
        deflater.finish();
        compressed = java.util.Arrays.copyOf(out, deflater.deflate(out));
        deflater.end();
    }

    private interface Listener {
        void changed();
    }

    private static final List<Listener> listeners = new ArrayList<>();

    private static void siteListener() {
        byte[] view = bytes(500, 4000);
        listeners.add(() -> view[0]++);
        leaked(view.length + 16 + 24);
    }

    // --- healthy ---

    private static final Map<Long, byte[]> lru = Collections.synchronizedMap(new LinkedHashMap<>(16, 0.75f, true) {
        @Override
        protected boolean removeEldestEntry(Map.Entry<Long, byte[]> eldest) {
            return size() > 8000;
        }
    });
    private static double nPut;

    private static void stepCache() {
        for (; nPut < elapsed() * 400; nPut++) lru.put(random.nextLong(), bytes(1000, 4000));
    }

    private static void stepGarbage() {
        for (int i = 0; i < 60; i++) requests[random.nextInt(256)] = new byte[40000];
    }

    private static final ArrayDeque<ByteBuffer> pool = new ArrayDeque<>();

    private static void stepDirectPool() {
        int wanted = (int) (Math.min(1, elapsed() / 12) * 200);
        List<ByteBuffer> taken = new ArrayList<>();
        for (int i = 0; i < wanted; i++) taken.add(pool.isEmpty() ? ByteBuffer.allocateDirect(65536) : pool.pop());
        for (ByteBuffer buffer : taken) {
            buffer.putLong(0, work);
            pool.push(buffer);
        }
    }

    private static void stepInflaters() {
        for (int i = 0; i < 3; i++) {
            Inflater inflater = new Inflater();
            try {
                inflater.setInput(compressed);
                inflater.inflate(new byte[70000]);
            } catch (java.util.zip.DataFormatException broken) {
                fail(broken.toString());
            }
            inflater.end();
        }
    }

    private static final TreeMap<Double, byte[]> sessions = new TreeMap<>();
    private static double nSessions;

    private static void stepSessions() {
        for (; nSessions < elapsed() * 600; nSessions++)
            sessions.put(elapsed() - 6 * Math.log(1 - random.nextDouble()), bytes(500, 3000));
        sessions.headMap(elapsed()).clear();
    }

    private static Runnable paced(Runnable site) {
        return () -> {
            while (owed() > 64000) {
                site.run();
                work++;
            }
        };
    }

    private static final Map<String, Runnable> LEAKING = new HashMap<>();
    private static final Map<String, Runnable> HEALTHY = new HashMap<>();

    static {
        LEAKING.put("java_static_map", paced(MemoryLeakSimulator::siteStaticMap));
        LEAKING.put("java_list", paced(MemoryLeakSimulator::siteList));
        LEAKING.put("java_thread_local", paced(MemoryLeakSimulator::siteThreadLocal));
        LEAKING.put("java_direct_buffer", paced(MemoryLeakSimulator::siteDirectBuffer));
        LEAKING.put("java_inflater", paced(MemoryLeakSimulator::siteInflater));
        LEAKING.put("java_deflater", paced(MemoryLeakSimulator::siteDeflater));
        LEAKING.put("java_listener", paced(MemoryLeakSimulator::siteListener));
        HEALTHY.put("java_steady", () -> {});
        HEALTHY.put("java_garbage", MemoryLeakSimulator::stepGarbage);
        HEALTHY.put("java_cache20", MemoryLeakSimulator::stepCache);
        HEALTHY.put("java_direct_pool", MemoryLeakSimulator::stepDirectPool);
        HEALTHY.put("java_inflaters_ended", MemoryLeakSimulator::stepInflaters);
        HEALTHY.put("java_sessions", MemoryLeakSimulator::stepSessions);
    }

    private static double rateOf(String text) {
        var match = java.util.regex.Pattern.compile("([\\d.]+)([GMKk]?B?)(?:/(?:s|(\\d+)min))?").matcher(text);
        if (!match.matches()) fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min");
        double unit = match.group(2).startsWith("G") ? 1e9 : match.group(2).startsWith("M") ? 1e6
                : match.group(2).toUpperCase().startsWith("K") ? 1e3 : 1;
        return Double.parseDouble(match.group(1)) * unit
                / (match.group(3) == null ? 1 : 60 * Integer.parseInt(match.group(3)));
    }

    private static long anonymousBytes() throws java.io.IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status")))
            if (line.startsWith("RssAnon:")) return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
        return 0;
    }

    public static void main(String[] args) throws Exception {
        String kind = "";
        double duration = 60, churnPerS = 3000;
        for (int i = 0; i + 1 < args.length; i += 2)
            switch (args[i]) {
                case "--kind" -> kind = args[i + 1];
                case "--leak-rate" -> rate = rateOf(args[i + 1]);
                case "--duration" -> duration = Double.parseDouble(args[i + 1]);
                case "--seed" -> random.setSeed(Long.parseLong(args[i + 1]));
                case "--churn" -> churnPerS = Double.parseDouble(args[i + 1]);
                default -> fail("options: --kind K --leak-rate 10MB/s --duration S --seed N --churn REQUESTS_PER_S");
            }
        boolean leaks = LEAKING.containsKey(kind);
        Runnable step = leaks ? LEAKING.get(kind) : HEALTHY.get(kind);
        if (step == null) fail("this program has no such --kind");
        if (leaks && rate * duration > LIMIT_BYTES) fail("this rate would leak more than 2 GB in this duration");
        compressOnce();
        String leakingKind = kind;
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {   // SIGTERM: the main thread tells the truth and ends us
            stopping = true;
            try {
                main.join(5000);
            } catch (InterruptedException early) {
                Thread.currentThread().interrupt();
            }
        }));
        long parent = ProcessHandle.current().parent().map(ProcessHandle::pid).orElse(0L);
        System.out.println("{\"ready\": true, \"pid\": " + ProcessHandle.current().pid() + "}");
        double done = 0, checked = 0;
        while (!stopping && elapsed() < duration) {
            double due = elapsed() * churnPerS - done;
            done = elapsed() * churnPerS;
            churn((int) Math.min(due, churnPerS / 10));
            step.run();
            if (elapsed() - checked > 1) {   // Java has no prctl: gone within a second of its parent
                checked = elapsed();
                if (ProcessHandle.current().parent().map(ProcessHandle::pid).orElse(0L) != parent)
                    Runtime.getRuntime().halt(1);
            }
            Thread.sleep(10);
        }
        OperatingSystemMXBean system = ManagementFactory.getOperatingSystemMXBean();
        double cpu = ((com.sun.management.OperatingSystemMXBean) system).getProcessCpuTime() / 1e9;
        System.out.printf(java.util.Locale.ROOT,
                "{\"kind\": \"%s\", \"leaks\": %s, \"leaked_bytes\": %d, \"leaked_blocks\": %d, \"held_bytes\": %d, "
                        + "\"work\": %d, \"cpu_s\": %.3f, \"wall_s\": %.3f, \"anon_bytes\": %d}%n",
                leakingKind, leaks, leakedBytes, leakedBlocks, heldBytes, work, cpu, elapsed(), anonymousBytes());
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }
}
