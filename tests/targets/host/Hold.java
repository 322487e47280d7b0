import java.util.ArrayList;
import java.util.List;

/** Keeps as many MiB as it is told, makes as many MiB of garbage, collects, says "ready" and waits. */
public class Hold {
    public static void main(String[] arguments) throws Exception {
        int held = Integer.parseInt(arguments[0]), garbage = Integer.parseInt(arguments[1]);
        List<byte[]> keep = new ArrayList<>();
        for (int i = 0; i < held * 10; i++) {
            keep.add(new byte[100_000]);
        }
        long sum = 0;
        for (int i = 0; i < garbage * 10; i++) {
            sum += new byte[100_000].length;
        }
        System.gc();
        System.out.println("ready " + keep.size() + " " + sum);
        System.in.read();
    }
}
