// block=8 bus_bytes=8 inp_depth=2048 wgt_depth=512 acc_depth=1024 aux_depth=256 tree_stages=3 queue_depth=16 bursts=16

// The accelerator. After `start` it runs the program at `program_address`, so many chunks long, until `done`;
// `error`: the program is damaged. `issue` and `retire` pulse when load, compute, store (bits 0, 1, 2) take a word
// and when it is done.
module accelerator (
    input wire clk,
    input wire reset,
    input wire start,
    input wire [31:0] program_address,
    input wire [15:0] program_chunks,
    output wire done,
    output wire error,
    output wire request_valid,
    input wire request_ready,
    output wire request_write,
    output wire request_fetch,
    output wire [31:0] request_address,
    output wire [8:0] request_beats,
    input wire read_valid,
    output wire read_ready,
    input wire read_fetch,
    input wire [63:0] read_data,
    output wire write_valid,
    input wire write_ready,
    output wire [63:0] write_data,
    output wire [2:0] issue,
    output wire [2:0] retire
);
    wire load_push, load_full; wire [139:0] load_word;
    wire compute_push, compute_full; wire [241:0] compute_word;
    wire store_push, store_full; wire [143:0] store_word;
    wire fetch_offer, load_offer, store_offer, fetch_grant, load_grant, store_grant, dealt, finished, broken;
    wire [31:0] fetch_address, load_address, store_address;
    wire [8:0] load_beats, store_beats;
    wire load_ready;
    fetch fetch (.clk(clk), .reset(reset), .start(start), .program_address(program_address),
        .program_chunks(program_chunks),
        .offer(fetch_offer), .address(fetch_address), .grant(fetch_grant), .beat(read_valid && read_fetch),
        .beat_data(read_data), .load_push(load_push), .load_word(load_word), .load_full(load_full), .compute_push(compute_push), .compute_word(compute_word), .compute_full(compute_full), .store_push(store_push), .store_word(store_word), .store_full(store_full), .dealt(dealt), .finished(finished), .broken(broken));

    wire give_load_compute, take_load_compute, any_load_compute;
    tokens load_compute (.clk(clk), .reset(reset), .give(give_load_compute), .take(take_load_compute),
        .any(any_load_compute));
    wire give_compute_load, take_compute_load, any_compute_load;
    tokens compute_load (.clk(clk), .reset(reset), .give(give_compute_load), .take(take_compute_load),
        .any(any_compute_load));
    wire give_compute_store, take_compute_store, any_compute_store;
    tokens compute_store (.clk(clk), .reset(reset), .give(give_compute_store), .take(take_compute_store),
        .any(any_compute_store));
    wire give_store_compute, take_store_compute, any_store_compute;
    tokens store_compute (.clk(clk), .reset(reset), .give(give_store_compute), .take(take_store_compute),
        .any(any_store_compute));

    wire [0:0] inp_write;
    wire [7:0] wgt_write;
    wire [3:0] aux_write;
    wire [11:0] scratch_at;
    wire [63:0] scratch_data, scratch_off;
    load load (.clk(clk), .reset(reset), .queue_push(load_push), .queue_word(load_word), .queue_full(load_full),
        .token(any_compute_load), .pop(take_compute_load), .push(give_load_compute), .offer(load_offer),
        .address(load_address),
        .beats(load_beats), .grant(load_grant), .beat(read_valid && !read_fetch), .ready(load_ready),
        .beat_data(read_data),
        .inp_write(inp_write), .wgt_write(wgt_write), .aux_write(aux_write), .write_address(scratch_at),
        .write_data(scratch_data), .write_off(scratch_off), .issue(issue[0]), .retire(retire[0]));

    wire [11:0] inp_read, wgt_read, aux_read, acc_read, acc_at, acc_store_read;
    wire [63:0] inp_data;
    wire [511:0] wgt_data;
    wire [255:0] aux_data, acc_data, acc_store_data, acc_result;
    wire acc_write;
    compute compute (.clk(clk), .reset(reset), .queue_push(compute_push), .queue_word(compute_word),
        .queue_full(compute_full),
        .token_prev(any_load_compute), .token_next(any_store_compute), .pop_prev(take_load_compute),
        .pop_next(take_store_compute), .push_prev(give_compute_load), .push_next(give_compute_store),
        .inp_read(inp_read), .inp_data(inp_data), .wgt_read(wgt_read), .wgt_data(wgt_data), .aux_read(aux_read),
        .aux_data(aux_data), .acc_read(acc_read), .acc_data(acc_data), .acc_write(acc_write), .acc_at(acc_at),
        .acc_result(acc_result), .issue(issue[1]), .retire(retire[1]));

    store store (.clk(clk), .reset(reset), .queue_push(store_push), .queue_word(store_word),
        .queue_full(store_full),
        .token(any_compute_store), .pop(take_compute_store), .push(give_store_compute), .offer(store_offer),
        .address(store_address), .beats(store_beats), .grant(store_grant), .acc_read(acc_store_read),
        .acc_data(acc_store_data), .write_valid(write_valid), .write_ready(write_ready), .write_data(write_data),
        .issue(issue[2]), .retire(retire[2]));

    ram_64x2048 inp_0 (.clk(clk), .write(inp_write), .write_address(scratch_at[10:0]), .write_data(scratch_data), .read_address(inp_read[10:0]), .data(inp_data[63:0]));
    ram_64x512 wgt_0 (.clk(clk), .write(wgt_write[0]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_off[55:48], scratch_off[47:40], scratch_off[39:32], scratch_off[31:24], scratch_off[23:16], scratch_off[15:8], scratch_data[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[63:0]));
    ram_64x512 wgt_1 (.clk(clk), .write(wgt_write[1]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_off[55:48], scratch_off[47:40], scratch_off[39:32], scratch_off[31:24], scratch_off[23:16], scratch_data[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[127:64]));
    ram_64x512 wgt_2 (.clk(clk), .write(wgt_write[2]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_off[55:48], scratch_off[47:40], scratch_off[39:32], scratch_off[31:24], scratch_data[23:16], scratch_off[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[191:128]));
    ram_64x512 wgt_3 (.clk(clk), .write(wgt_write[3]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_off[55:48], scratch_off[47:40], scratch_off[39:32], scratch_data[31:24], scratch_off[23:16], scratch_off[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[255:192]));
    ram_64x512 wgt_4 (.clk(clk), .write(wgt_write[4]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_off[55:48], scratch_off[47:40], scratch_data[39:32], scratch_off[31:24], scratch_off[23:16], scratch_off[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[319:256]));
    ram_64x512 wgt_5 (.clk(clk), .write(wgt_write[5]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_off[55:48], scratch_data[47:40], scratch_off[39:32], scratch_off[31:24], scratch_off[23:16], scratch_off[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[383:320]));
    ram_64x512 wgt_6 (.clk(clk), .write(wgt_write[6]), .write_address(scratch_at[8:0]), .write_data({scratch_off[63:56], scratch_data[55:48], scratch_off[47:40], scratch_off[39:32], scratch_off[31:24], scratch_off[23:16], scratch_off[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[447:384]));
    ram_64x512 wgt_7 (.clk(clk), .write(wgt_write[7]), .write_address(scratch_at[8:0]), .write_data({scratch_data[63:56], scratch_off[55:48], scratch_off[47:40], scratch_off[39:32], scratch_off[31:24], scratch_off[23:16], scratch_off[15:8], scratch_off[7:0]}), .read_address(wgt_read[8:0]), .data(wgt_data[511:448]));
    ram_64x256 aux_0 (.clk(clk), .write(aux_write[0]), .write_address(scratch_at[7:0]), .write_data(scratch_data), .read_address(aux_read[7:0]), .data(aux_data[63:0]));
    ram_64x256 aux_1 (.clk(clk), .write(aux_write[1]), .write_address(scratch_at[7:0]), .write_data(scratch_data), .read_address(aux_read[7:0]), .data(aux_data[127:64]));
    ram_64x256 aux_2 (.clk(clk), .write(aux_write[2]), .write_address(scratch_at[7:0]), .write_data(scratch_data), .read_address(aux_read[7:0]), .data(aux_data[191:128]));
    ram_64x256 aux_3 (.clk(clk), .write(aux_write[3]), .write_address(scratch_at[7:0]), .write_data(scratch_data), .read_address(aux_read[7:0]), .data(aux_data[255:192]));
    ram_256x1024 acc_for_compute (.clk(clk), .write(acc_write), .write_address(acc_at[9:0]), .write_data(acc_result), .read_address(acc_read[9:0]), .data(acc_data));
    ram_256x1024 acc_for_store (.clk(clk), .write(acc_write), .write_address(acc_at[9:0]), .write_data(acc_result), .read_address(acc_store_read[9:0]), .data(acc_store_data));
    wire unused_bits = &{1'b1, inp_read[11:11], wgt_read[11:9], aux_read[11:8], acc_read[11:10], acc_store_read[11:10], acc_at[11:10], scratch_at[11:11]};

    // the port to the memory
    reg request_now, request_is_write, request_is_fetch;
    reg [31:0] request_at;
    reg [8:0] request_length;
    assign {request_valid, request_write, request_fetch} = {request_now, request_is_write, request_is_fetch};
    assign {request_address, request_beats} = {request_at, request_length};
    assign read_ready = read_fetch || load_ready;
    wire free = !request_now || request_ready;
    assign fetch_grant = free && fetch_offer;
    assign store_grant = free && store_offer && !fetch_offer;
    assign load_grant = free && load_offer && !fetch_offer && !store_offer;
    always @(posedge clk) begin
        if (reset) request_now <= 1'b0;
        else if (free) request_now <= fetch_offer || store_offer || load_offer;
        if (free) begin
            request_is_write <= store_grant;
            request_is_fetch <= fetch_grant;
            request_at <= fetch_offer ? fetch_address : store_offer ? store_address : load_address;
            request_length <= fetch_offer ? 9'd32
                : store_offer ? store_beats : load_beats;
        end
    end

    // the end
    reg [9:0] pending;  // dealt out and not done
    reg over;
    assign done = over || broken;
    assign error = broken;
    wire [1:0] retired = {1'b0, retire[0]} + {1'b0, retire[1]} + {1'b0, retire[2]};
    always @(posedge clk) begin
        if (reset) begin
            pending <= 10'd0;
            over <= 1'b0;
        end else begin
            pending <= pending + {9'd0, dealt} - {8'd0, retired};
            over <= !start && finished && pending == 10'd0;
        end
    end
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_248x16 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [247:0] word,
    input wire pop,
    output wire [247:0] head,
    output wire valid,
    output wire full
);
    reg [247:0] cells [0:15];
    reg [247:0] oldest;
    reg [3:0] first, last;
    reg [4:0] count;  // in `cells`
    reg shown;
    wire move = count != 5'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 5'd16 || (count == 5'd15 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 4'd0;
            last <= 4'd0;
            count <= 5'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 4'd1;
            if (move) first <= first + 4'd1;
            if (push && !move) count <= count + 5'd1;
            if (move && !push) count <= count - 5'd1;
        end
    end
endmodule

// Reads words in chunks and deals them out. `finished`: FINISH was dealt out and every word that was asked for has
// come. `broken`: a word with no such opcode, or no FINISH.
module fetch (
    input wire clk,
    input wire reset,
    input wire start,
    input wire [31:0] program_address,
    input wire [15:0] program_chunks,
    output wire offer,
    output wire [31:0] address,
    input wire grant,
    input wire beat,
    input wire [63:0] beat_data,
    output wire load_push,
    output wire [139:0] load_word,
    input wire load_full,
    output wire compute_push,
    output wire [241:0] compute_word,
    input wire compute_full,
    output wire store_push,
    output wire [143:0] store_word,
    input wire store_full,
    output wire dealt,
    output wire finished,
    output wire broken
);
    reg [31:0] next;
    reg [15:0] chunks;
    reg [4:0] room;  // words for which the queue has room
    reg running, ended, failed;

    assign offer = running && chunks != 16'd0 && room >= 5'd8;
    assign address = next;
    assign finished = ended && room == 5'd16;
    assign broken = failed;

    // words out of beats
    reg [255:0] word;
    reg [1:0] part;
    reg word_ready;
    always @(posedge clk) begin
        if (beat) word <= {beat_data, word[255:64]};
        word_ready <= beat && part == 2'd3 && !reset;
        if (reset) part <= 2'd0;
        else if (beat) part <= part + 2'd1;
    end

    wire [247:0] head;
    wire valid, pop;
    fifo_248x16 queue (.clk(clk), .reset(reset), .push(word_ready), .word(word[247:0]), .pop(pop),
        .head(head), .valid(valid), .full(unused_full));
    wire unused_full;
    wire unused_bits = &{unused_full, word[255:248], head[17], head[18], head[19]};

    // dealing out
    wire [3:0] opcode = head[3:0];
    wire is_load = opcode == 4'd1;
    wire is_compute = opcode == 4'd2 || opcode == 4'd3;
    wire is_store = opcode == 4'd4;
    wire is_finish = opcode == 4'd5;
    wire live = valid && running && !ended && !failed;
    assign load_push = live && is_load && !load_full;
    assign compute_push = live && is_compute && !compute_full;
    assign store_push = live && is_store && !store_full;
    assign load_word = {head[155:148], head[147:136], head[135:124], head[123:112], head[111:88], head[87:56], head[55:44], head[43:32], head[31:20], head[9:8], head[7], head[5]};
    assign compute_word = {head[0], head[16:14], head[247:236], head[235:224], head[223:212], head[211:200], head[199:188], head[187:176], head[175:164], head[163:152], head[151:140], head[139:128], head[127:116], head[115:104], head[103:92], head[91:80], head[79:68], head[67:56], head[55:44], head[43:32], head[31:20], head[13:11], head[10], head[9:8], head[7], head[6], head[5], head[4]};
    assign store_word = {head[160:153], head[152:145], head[144:139], head[138:124], head[123:112], head[111:88], head[87:56], head[55:44], head[43:32], head[31:20], head[8], head[6], head[4]};
    assign dealt = load_push || compute_push || store_push;
    wire finish = live && is_finish;
    wire strange = live && !(is_load || is_compute || is_store || is_finish);
    wire no_end = running && !ended && chunks == 16'd0 && room == 5'd16;
    assign pop = dealt || finish || (valid && ended);

    always @(posedge clk) begin
        if (reset) begin
            running <= 1'b0;
            ended <= 1'b0;
            failed <= 1'b0;
            room <= 5'd16;
            chunks <= 16'd0;
            next <= 32'd0;
        end else if (start) begin
            running <= 1'b1;
            ended <= 1'b0;
            failed <= 1'b0;
            next <= program_address;
            chunks <= program_chunks;
        end else begin
            if (grant) begin
                next <= next + 32'd32;
                chunks <= chunks - 16'd1;
            end
            if (finish) begin
                ended <= 1'b1;
                chunks <= 16'd0;
            end
            if (strange || no_end) failed <= 1'b1;
            room <= room - (grant ? 5'd8 : 5'd0) + (pop ? 5'd1 : 5'd0);
        end
    end
endmodule

// Offers a request a row, from the cycle after `take` on. `row_done`: a row that was asked for has moved.
module requests (
    input wire clk,
    input wire reset,
    input wire take,
    input wire [11:0] rows,
    input wire [8:0] row_beats,
    input wire [31:0] first_address,
    input wire [23:0] row_stride,
    output wire busy,
    output wire offer,
    output wire [31:0] address,
    output wire [8:0] beats,
    input wire grant,
    input wire row_done
);
    reg [11:0] left;
    reg [8:0] length;
    reg [31:0] next;
    reg [23:0] stride;
    reg active;
    reg [4:0] open;
    assign busy = active;
    assign offer = active && open != 5'd16;
    assign address = next;
    assign beats = length;
    always @(posedge clk) begin
        if (take) begin
            left <= rows;
            length <= row_beats;
            next <= first_address;
            stride <= row_stride;
        end else if (grant) begin
            left <= left - 12'd1;
            next <= next + {8'd0, stride};
        end
        if (reset) begin
            active <= 1'b0;
            open <= 5'd0;
        end else begin
            if (take) active <= 1'b1;
            else if (grant && left == 12'd1) active <= 1'b0;
            if (grant && !row_done) open <= open + 5'd1;
            if (row_done && !grant) open <= open - 5'd1;
        end
    end
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_140x16 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [139:0] word,
    input wire pop,
    output wire [139:0] head,
    output wire valid,
    output wire full
);
    reg [139:0] cells [0:15];
    reg [139:0] oldest;
    reg [3:0] first, last;
    reg [4:0] count;  // in `cells`
    reg shown;
    wire move = count != 5'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 5'd16 || (count == 5'd15 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 4'd0;
            last <= 4'd0;
            count <= 5'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 4'd1;
            if (move) first <= first + 4'd1;
            if (push && !move) count <= count + 5'd1;
            if (move && !push) count <= count - 5'd1;
        end
    end
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_80x8 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [79:0] word,
    input wire pop,
    output wire [79:0] head,
    output wire valid,
    output wire full
);
    reg [79:0] cells [0:7];
    reg [79:0] oldest;
    reg [2:0] first, last;
    reg [3:0] count;  // in `cells`
    reg shown;
    wire move = count != 4'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 4'd8 || (count == 4'd7 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 3'd0;
            last <= 3'd0;
            count <= 4'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 3'd1;
            if (move) first <= first + 3'd1;
            if (push && !move) count <= count + 4'd1;
            if (move && !push) count <= count - 4'd1;
        end
    end
endmodule

// The half of the load unit that takes data. It fills (`filling`) or takes beats; every element goes to the next
// place. Writes are presented one cycle later.
module receive (
    input wire clk,
    input wire reset,
    input wire [79:0] job,
    input wire job_valid,
    output wire job_pop,
    input wire beat,
    output wire ready,
    input wire [63:0] beat_data,
    output wire row_done,
    output wire push,
    output wire retire,
    output wire inp_write,
    output wire [7:0] wgt_write,
    output wire [3:0] aux_write,
    output wire [11:0] write_address,
    output wire [63:0] write_data,
    output wire [63:0] write_off
);
    reg active, filling, pushes;
    reg [1:0] target;
    reg [11:0] at, fill, rows, between, after;
    reg [8:0] beats, left;
    reg [2:0] at_part, last_part;
    reg [7:0] value;

    assign job_pop = job_valid && !active;
    assign ready = active && !filling;
    wire taken = beat && ready;
    wire filled = active && filling;
    assign row_done = taken && left == 9'd1;
    wire last_fill = filled && fill == 12'd1;
    wire last_row = rows == 12'd0;  // filling: the rows have come
    wire over = (row_done && rows == 12'd1 && after == 12'd0) || (last_fill && last_row);

    always @(posedge clk) begin
        if (job_pop) begin
            filling <= job[46:35] != 12'd0;
            fill <= job[46:35];
            rows <= job[25:14];
            beats <= job[34:26];
            left <= job[34:26];
            between <= job[58:47];
            after <= job[70:59];
            value <= job[78:71];
            at <= job[13:2];
            target <= job[1:0];
            pushes <= job[79];
            at_part <= 3'd0;
        end else begin
            if (row_done) begin
                rows <= rows - 12'd1;
                left <= beats;
                fill <= rows == 12'd1 ? after : between;
                filling <= (rows == 12'd1 ? after : between) != 12'd0;
            end else if (taken) left <= left - 9'd1;
            if (filled) fill <= fill - 12'd1;
            if (last_fill) filling <= 1'b0;
            if (taken) at_part <= at_part == last_part ? 3'd0 : at_part + 3'd1;
            if (filled || (taken && at_part == last_part)) at <= at + 12'd1;
        end
        if (reset || over) active <= 1'b0;
        else if (job_pop) active <= 1'b1;
    end
    always @(*) case (target)
        2'd0: last_part = 3'd0;
        2'd1: last_part = 3'd7;
        2'd2: last_part = 3'd3;
        2'd3: last_part = 3'd0;
    endcase

    reg inp_now;
    reg [7:0] wgt_now;
    reg [3:0] aux_now;
    reg [11:0] address_now;
    reg [63:0] data_now, off_now;
    reg over_now, push_now;
    assign {inp_write, wgt_write, aux_write, write_address} = {inp_now, wgt_now, aux_now, address_now};
    assign {write_data, write_off} = {data_now, off_now};
    assign {retire, push} = {over_now, push_now};
    always @(posedge clk) begin
        inp_now <= target == 2'd0 && (filled || taken);
        wgt_now <= (!(target == 2'd1) ? 8'd0 : filled ? {8{1'b1}} : taken ? 8'd1 << at_part : 8'd0)
            | {{1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}, {1{(target == 2'd3 && (filled || (taken && at_part == 3'd0)))}}};
        aux_now <= !(target == 2'd2) ? 4'd0 : filled ? {4{1'b1}} : taken ? 4'd1 << at_part[1:0] : 4'd0;
        address_now <= at;
        data_now <= filling ? {8{value}} : beat_data;
        off_now <= filling ? {8{value}}
            : target == 2'd3 ? 64'd0 : beat_data;
        over_now <= over && !reset;
        push_now <= over && pushes && !reset;
    end
endmodule

// The load unit: one half asks for rows, the other takes what comes.
module load (
    input wire clk,
    input wire reset,
    input wire queue_push,
    input wire [139:0] queue_word,
    output wire queue_full,
    input wire token,
    output wire pop,
    output wire push,
    output wire offer,
    output wire [31:0] address,
    output wire [8:0] beats,
    input wire grant,
    input wire beat,
    output wire ready,
    input wire [63:0] beat_data,
    output wire inp_write,
    output wire [7:0] wgt_write,
    output wire [3:0] aux_write,
    output wire [11:0] write_address,
    output wire [63:0] write_data,
    output wire [63:0] write_off,
    output wire issue,
    output wire retire
);
    wire [139:0] head;
    wire valid, busy, jobs_full, job_valid, job_pop, row_done;
    fifo_140x16 queue (.clk(clk), .reset(reset), .push(queue_push), .word(queue_word), .pop(issue),
        .head(head), .valid(valid), .full(queue_full));
    assign issue = valid && !busy && !jobs_full && (token || !head[0]);
    assign pop = issue && head[0];
    wire unused_bits = &{head[27:25]};

    wire [8:0] cols = head[24:16];  // a row has no more
    reg [8:0] row_beats;
    always @(*) case (head[3:2])
        2'd0: row_beats = cols;
        2'd1: row_beats = {cols[5:0], 3'd0};
        2'd2: row_beats = {cols[6:0], 2'd0};
        2'd3: row_beats = cols;
    endcase
    requests requests (.clk(clk), .reset(reset), .take(issue), .rows(head[15:4]), .row_beats(row_beats),
        .first_address(head[71:40]), .row_stride(head[95:72]), .busy(busy), .offer(offer),
        .address(address),
        .beats(beats), .grant(grant), .row_done(row_done));

    wire [79:0] job;
    fifo_80x8 jobs (.clk(clk), .reset(reset), .push(issue), .word({head[1], head[139:132], head[131:120], head[119:108], head[107:96], row_beats, head[15:4], head[39:28], head[3:2]}), .pop(job_pop),
        .head(job), .valid(job_valid), .full(jobs_full));
    receive receive (.clk(clk), .reset(reset), .job(job), .job_valid(job_valid), .job_pop(job_pop), .beat(beat),
        .ready(ready),
        .beat_data(beat_data), .row_done(row_done), .push(push), .retire(retire),
        .inp_write(inp_write), .wgt_write(wgt_write), .aux_write(aux_write), .write_address(write_address), .write_data(write_data), .write_off(write_off));
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_242x16 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [241:0] word,
    input wire pop,
    output wire [241:0] head,
    output wire valid,
    output wire full
);
    reg [241:0] cells [0:15];
    reg [241:0] oldest;
    reg [3:0] first, last;
    reg [4:0] count;  // in `cells`
    reg shown;
    wire move = count != 5'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 5'd16 || (count == 5'd15 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 4'd0;
            last <= 4'd0;
            count <= 5'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 4'd1;
            if (move) first <= first + 4'd1;
            if (push && !move) count <= count + 5'd1;
            if (move && !push) count <= count - 5'd1;
        end
    end
endmodule

// One walk: the inner loop adds its stride, an end of it goes back and adds that of the loop around it. All three
// sums are made, then one is taken.
module walk (
    input wire clk,
    input wire take,
    input wire [11:0] base,
    input wire [11:0] stride0,
    input wire [11:0] stride1,
    input wire [11:0] stride2,
    input wire step,
    input wire end1,
    input wire end2,
    output wire [11:0] place
);
    reg [11:0] here, row, plane, add0, add1, add2;
    assign place = here;
    wire [11:0] next_here = here + add2;
    wire [11:0] next_row = row + add1;
    wire [11:0] next_plane = plane + add0;
    wire [11:0] back = end1 ? next_plane : next_row;
    always @(posedge clk) begin
        if (take) begin
            {here, row, plane} <= {base, base, base};
            {add0, add1, add2} <= {stride0, stride1, stride2};
        end else if (step) begin
            here <= end2 ? back : next_here;
            if (end2) row <= back;
            if (end2 && end1) plane <= next_plane;
        end
    end
endmodule

// The loop engine. A step stands in the last of the `interval` cycles that it takes; `soon`: the cycle before it.
// After the last step it rests until what it wrote can be read.
module loops (
    input wire clk,
    input wire reset,
    input wire take,
    input wire [241:0] word,
    output wire idle,
    output wire step,
    output wire first,
    output wire last,
    output wire soon,
    output wire [11:0] acc_address,
    output wire [11:0] inp_address,
    output wire [11:0] wgt_address,
    output wire [11:0] aux_address
);
    reg active, leading;
    reg [2:0] wait_left, wait_all, rest;
    reg [11:0] left0, count0; reg end0, one0; reg [11:0] left1, count1; reg end1, one1; reg [11:0] left2, count2; reg end2, one2;
    assign idle = !active && rest == 3'd0;
    assign step = active && wait_left == 3'd0;
    assign soon = active && wait_left == 3'd1;
    assign first = leading;
    assign last = end0 && end1 && end2;
    wire unused_bits = &{word[0], word[1], word[2], word[3], word[5:4], word[6], word[240:238], word[241]};
    walk acc_walk (.clk(clk), .take(take), .base(word[57:46]), .stride0(word[69:58]),
        .stride1(word[81:70]), .stride2(word[93:82]), .step(step), .end1(end1),
        .end2(end2),
        .place(acc_address));
    walk inp_walk (.clk(clk), .take(take), .base(word[105:94]), .stride0(word[117:106]),
        .stride1(word[129:118]), .stride2(word[141:130]), .step(step), .end1(end1),
        .end2(end2),
        .place(inp_address));
    walk wgt_walk (.clk(clk), .take(take), .base(word[153:142]), .stride0(word[165:154]),
        .stride1(word[177:166]), .stride2(word[189:178]), .step(step), .end1(end1),
        .end2(end2),
        .place(wgt_address));
    walk aux_walk (.clk(clk), .take(take), .base(word[201:190]), .stride0(word[213:202]),
        .stride1(word[225:214]), .stride2(word[237:226]), .step(step), .end1(end1),
        .end2(end2),
        .place(aux_address));
    always @(posedge clk) begin
        if (take) begin
            left0 <= word[21:10];
            count0 <= word[21:10];
            end0 <= word[21:10] == 12'd1;
            one0 <= word[21:10] == 12'd1;
            left1 <= word[33:22];
            count1 <= word[33:22];
            end1 <= word[33:22] == 12'd1;
            one1 <= word[33:22] == 12'd1;
            left2 <= word[45:34];
            count2 <= word[45:34];
            end2 <= word[45:34] == 12'd1;
            one2 <= word[45:34] == 12'd1;
            wait_left <= word[9:7] - 3'd1;
            wait_all <= word[9:7] - 3'd1;
            leading <= 1'b1;
        end else if (active) begin
            wait_left <= step ? wait_all : wait_left - 3'd1;
            if (step && end1 && end2) leading <= 1'b0;
            if (step && end1 && end2) begin
                left0 <= end0 ? count0 : left0 - 12'd1;
                end0 <= end0 ? one0 : left0 == 12'd2;
            end
            if (step && end2) begin
                left1 <= end1 ? count1 : left1 - 12'd1;
                end1 <= end1 ? one1 : left1 == 12'd2;
            end
            if (step) begin
                left2 <= end2 ? count2 : left2 - 12'd1;
                end2 <= end2 ? one2 : left2 == 12'd2;
            end
        end
        if (reset) begin
            active <= 1'b0;
            rest <= 3'd0;
        end else begin
            if (take) active <= 1'b1;
            else if (step && last) active <= 1'b0;
            if (step && last) rest <= 3'd4;
            else if (rest != 3'd0) rest <= rest - 3'd1;
        end
    end
endmodule

// The signed product, two cycles after its factors: one register before, one behind.
module multiply_8x8 (
    input wire clk,
    input wire [7:0] a,
    input wire [7:0] b,
    output wire [15:0] product
);
    reg signed [7:0] a_held;
    reg signed [7:0] b_held;
    reg signed [15:0] found;
    assign product = found;
    always @(posedge clk) begin
        a_held <= a;
        b_held <= b;
        found <= a_held * b_held;
    end
endmodule

// The signed product, two cycles after its factors: one register before, one behind.
module multiply_17x16 (
    input wire clk,
    input wire [16:0] a,
    input wire [15:0] b,
    output wire [32:0] product
);
    reg signed [16:0] a_held;
    reg signed [15:0] b_held;
    reg signed [32:0] found;
    assign product = found;
    always @(posedge clk) begin
        a_held <= a;
        b_held <= b;
        found <= a_held * b_held;
    end
endmodule

// The signed product, two cycles after its factors: one register before, one behind.
module multiply_16x16 (
    input wire clk,
    input wire [15:0] a,
    input wire [15:0] b,
    output wire [31:0] product
);
    reg signed [15:0] a_held;
    reg signed [15:0] b_held;
    reg signed [31:0] found;
    assign product = found;
    always @(posedge clk) begin
        a_held <= a;
        b_held <= b;
        found <= a_held * b_held;
    end
endmodule

// A row of the array: B products of int8 and their sum.
module lane (
    input wire clk,
    input wire [63:0] factors,
    input wire [63:0] weights,
    output wire [31:0] sum
);
    wire [127:0] products;
    genvar j;
    generate for (j = 0; j < 8; j = j + 1) begin : places
        multiply_8x8 multiply (.clk(clk), .a(factors[8 * j +: 8]), .b(weights[8 * j +: 8]),
            .product(products[16 * j +: 16]));
    end endgenerate
    reg [16:0] sum0_0;
    always @(posedge clk) sum0_0 <= {products[15], products[0 +: 16]} + {products[31], products[16 +: 16]};
    reg [16:0] sum0_1;
    always @(posedge clk) sum0_1 <= {products[47], products[32 +: 16]} + {products[63], products[48 +: 16]};
    reg [16:0] sum0_2;
    always @(posedge clk) sum0_2 <= {products[79], products[64 +: 16]} + {products[95], products[80 +: 16]};
    reg [16:0] sum0_3;
    always @(posedge clk) sum0_3 <= {products[111], products[96 +: 16]} + {products[127], products[112 +: 16]};
    reg [17:0] sum1_0;
    always @(posedge clk) sum1_0 <= {sum0_0[16], sum0_0} + {sum0_1[16], sum0_1};
    reg [17:0] sum1_1;
    always @(posedge clk) sum1_1 <= {sum0_2[16], sum0_2} + {sum0_3[16], sum0_3};
    reg [18:0] sum2_0;
    always @(posedge clk) sum2_0 <= {sum1_0[17], sum1_0} + {sum1_1[17], sum1_1};
    assign sum = {{13{sum2_0[18]}}, sum2_0};
endmodule

// A lane behind the array. `choice` comes first; `word` (the immediate), `narrow` (a byte of inp) and `aux` one
// cycle later, `acc` and `sum` two, the result five. The second stage adds, multiplies and shifts by whole bytes;
// the third adds the products' halves, shifts by bits, and takes one of them.
module alu (
    input wire clk,
    input wire [7:0] choice,
    input wire [31:0] word,
    input wire [7:0] narrow,
    input wire [31:0] aux,
    input wire [31:0] acc,
    input wire [31:0] sum,
    output wire [31:0] result
);
    // operands; zero is what comes from elsewhere
    reg [1:0] other;
    reg a_aux, a_acc, b_acc, b_sum, a_acc_1, b_acc_1, b_sum_1;
    reg [2:0] op_0, op_1;
    reg [31:0] a_before, b_before, acc_1;
    always @(posedge clk) begin
        other <= choice[0] ? 2'd3 : choice[4:3];
        a_aux <= choice[2];
        a_acc <= choice[1];
        b_acc <= !choice[0] && choice[4:3] == 2'd3;
        b_sum <= choice[0];
        op_0 <= choice[7:5];

        a_before <= aux & {32{a_aux}};
        case (other)
            2'd0: b_before <= word;
            2'd1: b_before <= {{24{narrow[7]}}, narrow};
            2'd2: b_before <= aux;
            default: b_before <= 32'd0;
        endcase
        {a_acc_1, b_acc_1, b_sum_1, op_1} <= {a_acc, b_acc, b_sum, op_0};
        acc_1 <= acc;
    end

    reg [31:0] left, right, left_1, right_1, coarse, found;
    wire [31:0] a = a_before | acc & {32{a_acc_1}};
    wire [31:0] b = b_before | sum & {32{b_sum_1}} | acc_1 & {32{b_acc_1}};
    wire [32:0] low;
    wire [31:0] high;
    multiply_17x16 multiply_low (.clk(clk), .a({1'b0, a[15:0]}), .b(b[15:0]), .product(low));
    multiply_16x16 multiply_high (.clk(clk), .a(a[31:16]), .b(b[15:0]), .product(high));
    reg [2:0] what, what_1, fine;
    reg [32:0] total;
    assign result = found;
    wire minus = what != 3'd1;
    wire less = total[32];
    wire take_right = what_1 == 3'd0 || less == (what_1 == 3'd4);
    wire [31:0] product = {low[31:16] + high[15:0], low[15:0]};
    wire signed [31:0] coarse_now = coarse;
    wire unused_bits = &{low[32], high[31:16]};
    always @(posedge clk) begin
        left <= a;
        right <= b;
        what <= op_1;

        total <= {left[31], left} + ({right[31], right} ^ {33{minus}}) + {32'd0, minus};
        coarse <= $signed(left) >>> {right[4:3], 3'd0};
        fine <= right[2:0];
        {left_1, right_1, what_1} <= {left, right, what};

        case (what_1)
            3'd1, 3'd2: found <= total[31:0];
            3'd5: found <= product;
            3'd6: found <= coarse_now >>> fine;
            default: found <= take_right ? right_1 : left_1;
        endcase
    end
endmodule

// Scratchpads, array, operands, lanes, result.
module pipeline (
    input wire clk,
    input wire reset,
    input wire step,
    input wire [7:0] what,
    input wire over,
    input wire [1:0] give,
    output wire [1:0] given,
    output wire retire,
    input wire [31:0] immediate,
    input wire is_immediate,
    input wire [11:0] acc_address,
    input wire [11:0] inp_address,
    input wire [11:0] wgt_address,
    input wire [11:0] aux_address,
    output wire [11:0] inp_read,
    input wire [63:0] inp_data,
    output wire [11:0] wgt_read,
    input wire [511:0] wgt_data,
    output wire [11:0] aux_read,
    input wire [255:0] aux_data,
    output wire [11:0] acc_read,
    input wire [255:0] acc_data,
    output wire acc_write,
    output wire [11:0] acc_at,
    output wire [255:0] acc_result
);
    // e: what travels along; one bit of `flow` a stage
    reg [9:0] flow, overs, gives_prev, gives_next;
    always @(posedge clk) begin
        if (reset) {flow, overs, gives_prev, gives_next} <= 40'd0;
        else begin
            flow <= {flow[8:0], step};
            overs <= {overs[8:0], over};
            gives_prev <= {gives_prev[8:0], give[0]};
            gives_next <= {gives_next[8:0], give[1]};
        end
    end
    assign given = {gives_next[9], gives_prev[9]};
    assign retire = overs[9];
    reg [11:0] acc_read_1, acc_read_2, acc_read_3, acc_read_4, acc_read_5;
    assign acc_read = acc_read_5;
    always @(posedge clk) begin
    acc_read_1 <= acc_address;
    acc_read_2 <= acc_read_1;
    acc_read_3 <= acc_read_2;
    acc_read_4 <= acc_read_3;
    acc_read_5 <= acc_read_4;
    end
    reg [11:0] aux_read_1, aux_read_2, aux_read_3, aux_read_4;
    assign aux_read = aux_read_4;
    always @(posedge clk) begin
    aux_read_1 <= aux_address;
    aux_read_2 <= aux_read_1;
    aux_read_3 <= aux_read_2;
    aux_read_4 <= aux_read_3;
    end
    assign inp_read = inp_address;
    assign wgt_read = wgt_address;

    // e+2: the operand of ALU that comes from `inp` or the word
    reg [1:0] immediates;
    always @(posedge clk) immediates <= {immediates[0], is_immediate};
    wire [63:0] outer = immediates[1] ? {32'd0, immediate} : inp_data;
    wire [63:0] outer_soon;
    reg [63:0] outer_soon_1, outer_soon_2, outer_soon_3, outer_soon_4;
    assign outer_soon = outer_soon_4;
    always @(posedge clk) begin
    outer_soon_1 <= outer;
    outer_soon_2 <= outer_soon_1;
    outer_soon_3 <= outer_soon_2;
    outer_soon_4 <= outer_soon_3;
    end

    // e+3 to e+4+t: the array
    wire [255:0] sums;
    genvar i;
    generate for (i = 0; i < 8; i = i + 1) begin : rows
        lane lane (.clk(clk), .factors(inp_data), .weights(wgt_data[64 * i +: 64]),
            .sum(sums[32 * i +: 32]));
    end endgenerate

    // k to k+5: the lanes
    wire [7:0] choice;
    reg [7:0] choice_1, choice_2, choice_3, choice_4, choice_5;
    assign choice = choice_5;
    always @(posedge clk) begin
    choice_1 <= what;
    choice_2 <= choice_1;
    choice_3 <= choice_2;
    choice_4 <= choice_3;
    choice_5 <= choice_4;
    end
    generate for (i = 0; i < 8; i = i + 1) begin : lanes
        alu alu (.clk(clk), .choice(choice), .word(outer_soon[31:0]), .narrow(outer_soon[8 * i +: 8]),
            .aux(aux_data[32 * i +: 32]), .acc(acc_data[32 * i +: 32]), .sum(sums[32 * i +: 32]),
            .result(acc_result[32 * i +: 32]));
    end endgenerate

    // k+5: the result
    reg [11:0] acc_at_1, acc_at_2, acc_at_3, acc_at_4, acc_at_5;
    assign acc_at = acc_at_5;
    always @(posedge clk) begin
    acc_at_1 <= acc_read;
    acc_at_2 <= acc_at_1;
    acc_at_3 <= acc_at_2;
    acc_at_4 <= acc_at_3;
    acc_at_5 <= acc_at_4;
    end
    assign acc_write = flow[9];
endmodule

// The compute unit: takes words, walks over their loops, sends steps down the pipeline.
module compute (
    input wire clk,
    input wire reset,
    input wire queue_push,
    input wire [241:0] queue_word,
    output wire queue_full,
    input wire token_prev,
    input wire token_next,
    output wire pop_prev,
    output wire pop_next,
    output wire push_prev,
    output wire push_next,
    output wire [11:0] inp_read,
    input wire [63:0] inp_data,
    output wire [11:0] wgt_read,
    input wire [511:0] wgt_data,
    output wire [11:0] aux_read,
    input wire [255:0] aux_data,
    output wire [11:0] acc_read,
    input wire [255:0] acc_data,
    output wire acc_write,
    output wire [11:0] acc_at,
    output wire [255:0] acc_result,
    output wire issue,
    output wire retire
);
    wire [241:0] head;
    wire valid, idle, step, first, last;
    wire [11:0] acc_address, inp_address, wgt_address, aux_address;
    fifo_242x16 queue (.clk(clk), .reset(reset), .push(queue_push), .word(queue_word), .pop(issue),
        .head(head), .valid(valid), .full(queue_full));
    assign issue = valid && idle && (token_prev || !head[0]) && (token_next || !head[1]);
    assign pop_prev = issue && head[0];
    assign pop_next = issue && head[1];

    wire operand_now;
    loops loops (.clk(clk), .reset(reset), .take(issue), .word(head), .idle(idle), .step(step), .first(first),
        .last(last),
        .soon(operand_now), .acc_address(acc_address), .inp_address(inp_address), .wgt_address(wgt_address), .aux_address(aux_address));

    // what the word says, for as long as it walks
    reg alu, once, give_prev, give_next;
    reg [1:0] start;
    reg [2:0] op;
    reg [31:0] immediate;
    always @(posedge clk) if (issue) begin
        alu <= head[241];
        once <= head[6];
        start <= head[5:4];
        op <= head[240:238];
        give_prev <= head[2];
        give_next <= head[3];
        immediate <= head[173:142];
    end

    wire [7:0] what = {!alu ? 3'd1 : once && first ? 3'd0 : op, start, !alu && start == 2'd2 && !(once && !first), alu || start == 2'd0 || (once && !first), !alu};
    wire at_operand = operand_now && alu && start == 2'd3;
    pipeline pipeline (.clk(clk), .reset(reset), .step(step), .what(what), .over(step && last),
        .give({step && last && give_next, step && last && give_prev}), .given({push_next, push_prev}),
        .retire(retire),
        .immediate(immediate), .is_immediate(alu && start == 2'd0),
        .acc_address(at_operand ? wgt_address : acc_address), .aux_address(aux_address),
        .inp_address(inp_address), .wgt_address(wgt_address),
        .inp_read(inp_read), .inp_data(inp_data), .wgt_read(wgt_read), .wgt_data(wgt_data),
        .aux_read(aux_read), .aux_data(aux_data), .acc_read(acc_read), .acc_data(acc_data),
        .acc_write(acc_write), .acc_at(acc_at), .acc_result(acc_result));
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_144x16 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [143:0] word,
    input wire pop,
    output wire [143:0] head,
    output wire valid,
    output wire full
);
    reg [143:0] cells [0:15];
    reg [143:0] oldest;
    reg [3:0] first, last;
    reg [4:0] count;  // in `cells`
    reg shown;
    wire move = count != 5'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 5'd16 || (count == 5'd15 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 4'd0;
            last <= 4'd0;
            count <= 5'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 4'd1;
            if (move) first <= first + 4'd1;
            if (push && !move) count <= count + 5'd1;
            if (move && !push) count <= count - 5'd1;
        end
    end
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_87x8 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [86:0] word,
    input wire pop,
    output wire [86:0] head,
    output wire valid,
    output wire full
);
    reg [86:0] cells [0:7];
    reg [86:0] oldest;
    reg [2:0] first, last;
    reg [3:0] count;  // in `cells`
    reg shown;
    wire move = count != 4'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 4'd8 || (count == 4'd7 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 3'd0;
            last <= 3'd0;
            count <= 4'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 3'd1;
            if (move) first <= first + 3'd1;
            if (push && !move) count <= count + 4'd1;
            if (move && !push) count <= count - 4'd1;
        end
    end
endmodule

// A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at it does
// not wait for a memory; what is pushed can be seen two cycles later.
module fifo_67x32 (
    input wire clk,
    input wire reset,
    input wire push,
    input wire [66:0] word,
    input wire pop,
    output wire [66:0] head,
    output wire valid,
    output wire full
);
    reg [66:0] cells [0:31];
    reg [66:0] oldest;
    reg [4:0] first, last;
    reg [5:0] count;  // in `cells`
    reg shown;
    wire move = count != 6'd0 && (!shown || pop);
    assign head = oldest;
    assign valid = shown;
    assign full = count == 6'd32 || (count == 6'd31 && shown);
    always @(posedge clk) begin
        if (push) cells[last] <= word;
        if (move) oldest <= cells[first];
        if (reset) begin
            first <= 5'd0;
            last <= 5'd0;
            count <= 6'd0;
            shown <= 1'b0;
        end else begin
            shown <= move || (shown && !pop);
            if (push) last <= last + 5'd1;
            if (move) first <= first + 5'd1;
            if (push && !move) count <= count + 6'd1;
            if (move && !push) count <= count - 6'd1;
        end
    end
endmodule

// (value * multiplier + round) >> shift, clipped; the value is `whole` or `narrow`. Two products, two sums, a
// shift by bytes that leaves 16 bits and whether more are needed, a shift by bits. `raw`: the low 32 bits of the
// sum, at the same time.
module scale (
    input wire clk,
    input wire [31:0] narrow,
    input wire [31:0] whole,
    input wire wide,
    input wire [14:0] multiplier,
    input wire [5:0] shift,
    input wire [47:0] round,
    input wire [7:0] low,
    input wire [7:0] high,
    output wire [7:0] clipped,
    output wire [31:0] raw
);
    reg from_whole;
    reg [5:0] by;
    reg signed [7:0] least, most;
    wire [31:0] value = from_whole ? whole : narrow;
    wire [15:0] factor = {1'b0, multiplier};
    wire [32:0] low_product;
    wire [31:0] high_product;
    multiply_17x16 multiply_low (.clk(clk), .a({1'b0, value[15:0]}), .b(factor), .product(low_product));
    multiply_16x16 multiply_high (.clk(clk), .a(value[31:16]), .b(factor), .product(high_product));
    reg [32:0] low_kept;
    reg [47:0] upper;
    reg signed [47:0] sum;
    reg [15:0] window;
    reg too_big, sign, too_big_2, sign_2;
    reg [7:0] shifted;
    reg [7:0] result;
    reg [31:0] raw_1, raw_2, raw_3;
    wire [55:0] long = {{8{sum[47]}}, sum};
    assign clipped = result;
    assign raw = raw_3;
    always @(posedge clk) begin
        from_whole <= wide;
        by <= shift;
        {least, most} <= {low, high};
        upper <= {high_product, 16'd0} + round;
        low_kept <= low_product;
        sum <= upper + {{15{low_kept[32]}}, low_kept};
        sign <= sum[47];
        raw_1 <= sum[31:0];
        case (by[5:3])
            3'd0: begin window <= long[15:0]; too_big <= |long[55:15] && !(&long[55:15]); end
            3'd1: begin window <= long[23:8]; too_big <= |long[55:23] && !(&long[55:23]); end
            3'd2: begin window <= long[31:16]; too_big <= |long[55:31] && !(&long[55:31]); end
            3'd3: begin window <= long[39:24]; too_big <= |long[55:39] && !(&long[55:39]); end
            3'd4: begin window <= long[47:32]; too_big <= |long[55:47] && !(&long[55:47]); end
            default: begin window <= long[55:40]; too_big <= |long[55:55] && !(&long[55:55]); end
        endcase
        shifted <= window[{1'b0, by[2:0]} +: 8];
        too_big_2 <= too_big || (window ^ {16{sign}}) >> ({1'b0, by[2:0]} + 4'd7) != 16'd0;
        sign_2 <= sign;
        raw_2 <= raw_1;
        result <= clip;
        raw_3 <= raw_2;
    end
    wire signed [7:0] full = too_big_2 ? {sign_2, {7{!sign_2}}} : shifted;
    wire [7:0] clip = full < least ? least : full > most ? most : full;
endmodule

// The half of the store unit that makes data ready. One beat a cycle while there is credit; the next store begins
// when the last beat of the one before has left the lanes.
module send (
    input wire clk,
    input wire reset,
    input wire [86:0] job,
    input wire job_valid,
    output wire job_pop,
    input wire credit,
    output wire [11:0] acc_read,
    input wire [255:0] acc_data,
    output wire made,
    output wire [66:0] beat
);
    reg active, wide, pushes;
    reg [11:0] at, row, rows, cols, col, pitch;
    reg [1:0] part;
    reg [14:0] multiplier;
    reg [5:0] shift;
    reg [47:0] round;
    reg [7:0] low, high;
    reg [3:0] draining;
    reg [5:0] credits;
    assign job_pop = job_valid && !active && draining == 4'd0;
    assign acc_read = at;
    wire step = active && credits != 6'd0;
    wire part_end = part == (wide ? 2'd3 : 2'd0);
    wire col_end = part_end && col == 12'd1;
    wire over = col_end && rows == 12'd1;
    always @(posedge clk) begin
        if (job_pop) begin
            at <= job[11:0];
            row <= job[11:0];
            rows <= job[23:12];
            {cols, col} <= {job[35:24], job[35:24]};
            pitch <= job[47:36];
            part <= 2'd0;
            wide <= job[48];
            multiplier <= job[48] ? 15'd1 : job[63:49];
            shift <= job[48] ? 6'd0 : job[69:64];
            round <= job[48] || job[69:64] == 6'd0 ? 48'd0 : 48'd1 << (job[69:64] - 6'd1);
            {low, high} <= {job[77:70], job[85:78]};
            pushes <= job[86];
        end else if (step) begin
            part <= part_end ? 2'd0 : part + 2'd1;
            if (part_end) begin
                at <= col_end ? row + pitch : at + 12'd1;
                col <= col_end ? cols : col - 12'd1;
            end
            if (col_end) begin
                row <= row + pitch;
                rows <= rows - 12'd1;
            end
        end
        if (reset) begin
            active <= 1'b0;
            draining <= 4'd0;
            credits <= 6'd32;
        end else begin
            if (job_pop) active <= 1'b1;
            else if (step && over) active <= 1'b0;
            if (step && over) draining <= 4'd9;
            else if (draining != 4'd0) draining <= draining - 4'd1;
            if (step && !credit) credits <= credits - 6'd1;
            if (credit && !step) credits <= credits + 6'd1;
        end
    end

    // what travels along
    reg [8:0] flow, row_lasts, lasts;
    reg [1:0] part_1, part_at_data;
    always @(posedge clk) begin
        if (reset) {flow, row_lasts, lasts} <= 27'd0;
        else begin
            flow <= {flow[7:0], step};
            row_lasts <= {row_lasts[7:0], step && col_end};
            lasts <= {lasts[7:0], step && over};
        end
        part_1 <= part;
        part_at_data <= part_1;
    end

    wire [63:0] bytes;
    wire [63:0] wides;
    genvar lane;
    generate for (lane = 0; lane < 8; lane = lane + 1) begin : lanes
        wire [31:0] narrow = acc_data[32 * (lane + 0) +: 32];
        wire [31:0] raw;
        if (lane < 2) begin : word
            scale scale (.clk(clk), .narrow(narrow), .whole((part_at_data == 2'd0 ? acc_data[32 * (lane + 0) +: 32] : part_at_data == 2'd1 ? acc_data[32 * (lane + 2) +: 32] : part_at_data == 2'd2 ? acc_data[32 * (lane + 4) +: 32] : acc_data[32 * (lane + 6) +: 32])), .wide(wide), .multiplier(multiplier),
                .shift(shift), .round(round), .low(low), .high(high), .clipped(bytes[8 * lane +: 8]), .raw(raw));
            assign wides[32 * lane +: 32] = raw;
        end else begin : narrow_only
            scale scale (.clk(clk), .narrow(narrow), .whole(narrow), .wide(1'b0), .multiplier(multiplier),
                .shift(shift), .round(round), .low(low), .high(high), .clipped(bytes[8 * lane +: 8]), .raw(raw));
            wire unused_raw = &{raw};
        end
    end endgenerate
    assign made = flow[8];
    assign beat = {wide ? wides : bytes, {pushes, lasts[8], row_lasts[8]}};
endmodule

// The store unit: one half asks for rows, the other makes the data ready and moves it.
module store (
    input wire clk,
    input wire reset,
    input wire queue_push,
    input wire [143:0] queue_word,
    output wire queue_full,
    input wire token,
    output wire pop,
    output wire push,
    output wire offer,
    output wire [31:0] address,
    output wire [8:0] beats,
    input wire grant,
    output wire [11:0] acc_read,
    input wire [255:0] acc_data,
    output wire write_valid,
    input wire write_ready,
    output wire [63:0] write_data,
    output wire issue,
    output wire retire
);
    wire [143:0] head;
    wire valid, busy, jobs_full, job_valid, job_pop;
    fifo_144x16 queue (.clk(clk), .reset(reset), .push(queue_push), .word(queue_word), .pop(issue),
        .head(head), .valid(valid), .full(queue_full));
    assign issue = valid && !busy && !jobs_full && (token || !head[0]);
    assign pop = issue && head[0];

    wire [8:0] row_beats = head[2] ? {head[21:15], 2'd0}
        : head[23:15];
    wire moved = write_valid && write_ready;
    wire row_done = moved && marks[0];
    requests requests (.clk(clk), .reset(reset), .take(issue), .rows(head[14:3]), .row_beats(row_beats),
        .first_address(head[70:39]), .row_stride(head[94:71]), .busy(busy), .offer(offer),
        .address(address),
        .beats(beats), .grant(grant), .row_done(row_done));

    wire [86:0] job;
    fifo_87x8 jobs (.clk(clk), .reset(reset), .push(issue), .word({head[1], head[143:136], head[135:128], head[127:122], head[121:107], head[2], head[106:95], head[26:15], head[14:3], head[38:27]}), .pop(job_pop),
        .head(job), .valid(job_valid), .full(jobs_full));
    wire made;
    wire [66:0] made_beat;
    send send (.clk(clk), .reset(reset), .job(job), .job_valid(job_valid), .job_pop(job_pop), .credit(moved),
        .acc_read(acc_read), .acc_data(acc_data), .made(made), .beat(made_beat));

    wire [2:0] marks;
    wire unused_full;
    fifo_67x32 waiting (.clk(clk), .reset(reset), .push(made), .word(made_beat), .pop(moved),
        .head({write_data, marks}), .valid(write_valid), .full(unused_full));
    reg retired, pushed;
    assign {retire, push} = {retired, pushed};
    always @(posedge clk) begin
        retired <= moved && marks[1] && !reset;
        pushed <= moved && marks[1] && marks[2] && !reset;
    end
endmodule

// Tokens from one unit to its neighbour.
module tokens (
    input wire clk,
    input wire reset,
    input wire give,
    input wire take,
    output wire any
);
    reg [7:0] count;
    reg some;  // count is not 0
    assign any = some;
    always @(posedge clk) begin
        some <= !reset && (give || (some && !(take && count == 8'd1)));
        if (reset) count <= 8'd0;
        else if (give && !take) count <= count + 8'd1;
        else if (take && !give) count <= count - 8'd1;
    end
endmodule

// A block memory: the word at `read_address` stands in `data` two cycles later.
module ram_64x2048 (
    input wire clk,
    input wire write,
    input wire [10:0] write_address,
    input wire [63:0] write_data,
    input wire [10:0] read_address,
    output wire [63:0] data
);
    (* no_rw_check *) reg [63:0] cells [0:2047];
    reg [63:0] found, held;
    assign data = held;
    always @(posedge clk) begin
        if (write) cells[write_address] <= write_data;
        found <= cells[read_address];
        held <= found;
    end
endmodule

// A block memory: the word at `read_address` stands in `data` two cycles later.
module ram_64x512 (
    input wire clk,
    input wire write,
    input wire [8:0] write_address,
    input wire [63:0] write_data,
    input wire [8:0] read_address,
    output wire [63:0] data
);
    (* no_rw_check *) reg [63:0] cells [0:511];
    reg [63:0] found, held;
    assign data = held;
    always @(posedge clk) begin
        if (write) cells[write_address] <= write_data;
        found <= cells[read_address];
        held <= found;
    end
endmodule

// A block memory: the word at `read_address` stands in `data` two cycles later.
module ram_64x256 (
    input wire clk,
    input wire write,
    input wire [7:0] write_address,
    input wire [63:0] write_data,
    input wire [7:0] read_address,
    output wire [63:0] data
);
    (* no_rw_check *) reg [63:0] cells [0:255];
    reg [63:0] found, held;
    assign data = held;
    always @(posedge clk) begin
        if (write) cells[write_address] <= write_data;
        found <= cells[read_address];
        held <= found;
    end
endmodule

// A block memory: the word at `read_address` stands in `data` two cycles later.
module ram_256x1024 (
    input wire clk,
    input wire write,
    input wire [9:0] write_address,
    input wire [255:0] write_data,
    input wire [9:0] read_address,
    output wire [255:0] data
);
    (* no_rw_check *) reg [255:0] cells [0:1023];
    reg [255:0] found, held;
    assign data = held;
    always @(posedge clk) begin
        if (write) cells[write_address] <= write_data;
        found <= cells[read_address];
        held <= found;
    end
endmodule
