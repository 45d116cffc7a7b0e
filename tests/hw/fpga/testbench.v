// Runs one program on the accelerator under any Verilog simulator, with the memory that harness.cpp has: bursts move in
// the order of their requests, the first beat `LATENCY` cycles after it, then one every `PACE`. The memory comes from
// memory.hex and goes to after.hex, a beat a line; what is printed: "done <error> <cycles>".

module testbench;
    parameter BLOCK = 4, BUS = 4, BEATS = 1024, ADDRESS = 0, CHUNKS = 1, LATENCY = 1, PACE = 1, LIMIT = 100000;

    reg clk = 1'b0, reset = 1'b1;
    reg [8 * BUS - 1:0] memory [0:BEATS - 1];
    integer cycle = 0, next = 0, first = 0, last = 0;
    // bursts that were asked for, the oldest at `first`
    integer ready [0:1023], place [0:1023], left [0:1023];
    reg writes [0:1023], fetches [0:1023];

    wire done, error, request_valid, request_write, request_fetch, read_ready, write_valid;
    wire [31:0] request_address;
    wire [8:0] request_beats;
    wire [8 * BUS - 1:0] write_data;
    wire [2:0] issue, retire;
    wire open = first != last && cycle >= ready[first % 1024] && cycle >= next;
    wire reads = open && !writes[first % 1024];
    wire moves = open && (writes[first % 1024] ? write_valid : read_ready);
    accelerator accelerator (.clk(clk), .reset(reset), .start(!reset && cycle == 0), .program_address(ADDRESS),
        .program_chunks(CHUNKS[15:0]), .done(done), .error(error), .request_valid(request_valid),
        .request_ready(1'b1), .request_write(request_write), .request_fetch(request_fetch),
        .request_address(request_address), .request_beats(request_beats), .read_valid(reads),
        .read_ready(read_ready), .read_fetch(reads && fetches[first % 1024]), .read_data(memory[place[first % 1024]]),
        .write_valid(write_valid), .write_ready(open && writes[first % 1024]), .write_data(write_data), .issue(issue),
        .retire(retire));

    always #5 clk = !clk;
    initial begin
        $readmemh("memory.hex", memory);
        repeat (4) @(negedge clk);
        reset = 1'b0;
    end
    always @(posedge clk) if (!reset) begin
        if ((cycle > 0 && done) || cycle == LIMIT) begin
            $display("done %0d %0d", cycle == LIMIT ? 2 : error, cycle);
            $writememh("after.hex", memory);
            $finish;
        end
        if (moves) begin
            if (writes[first % 1024]) memory[place[first % 1024]] <= write_data;
            place[first % 1024] <= place[first % 1024] + 1;
            left[first % 1024] <= left[first % 1024] - 1;
            next <= cycle + PACE;
            if (left[first % 1024] == 1) first <= first + 1;
        end
        if (request_valid) begin
            ready[last % 1024] <= cycle + LATENCY;
            place[last % 1024] <= request_address * (BLOCK / BUS);
            left[last % 1024] <= {23'd0, request_beats};
            writes[last % 1024] <= request_write;
            fetches[last % 1024] <= request_fetch;
            last <= last + 1;
        end
        cycle <= cycle + 1;
    end
endmodule
