import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

/** A Java program for bench/collapse.py. Usage: java Busy.java SECONDS */
public class Busy {
    static double price(int n) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += Math.sqrt(i) * Math.sin(i);
        return sum;
    }

    static int index(int n) {
        Map<String, Integer> table = new HashMap<>();
        for (int i = 0; i < n; i++) table.put("item number " + i, i);
        return new TreeMap<>(table).size();
    }

    public static void main(String[] args) {
        long end = System.nanoTime() + Long.parseLong(args[0]) * 1_000_000_000L;
        double sum = 0;
        while (System.nanoTime() < end) sum += price(5000) + index(2000);
        if (sum < 0) System.out.println(sum);
    }
}
