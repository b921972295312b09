define i32 @reverse_bits(i32 %0) {
  %2 = alloca i32
  store i32 %0, ptr %2
  %3 = load i32, ptr %2
  %4 = and i32 %3, 1431655765
  %5 = shl i32 %4, 1
  %6 = load i32, ptr %2
  %7 = lshr i32 %6, 1
  %8 = and i32 %7, 1431655765
  %9 = or i32 %5, %8
  store i32 %9, ptr %2
  %10 = load i32, ptr %2
  %11 = and i32 %10, 858993459
  %12 = shl i32 %11, 2
  %13 = load i32, ptr %2
  %14 = lshr i32 %13, 2
  %15 = and i32 %14, 858993459
  %16 = or i32 %12, %15
  store i32 %16, ptr %2
  %17 = load i32, ptr %2
  %18 = and i32 %17, 252645135
  %19 = shl i32 %18, 4
  %20 = load i32, ptr %2
  %21 = lshr i32 %20, 4
  %22 = and i32 %21, 252645135
  %23 = or i32 %19, %22
  store i32 %23, ptr %2
  %24 = load i32, ptr %2
  %25 = shl i32 %24, 24
  %26 = load i32, ptr %2
  %27 = and i32 %26, 65280
  %28 = shl i32 %27, 8
  %29 = or i32 %25, %28
  %30 = load i32, ptr %2
  %31 = lshr i32 %30, 8
  %32 = and i32 %31, 65280
  %33 = or i32 %29, %32
  %34 = load i32, ptr %2
  %35 = lshr i32 %34, 24
  %36 = or i32 %33, %35
  ret i32 %36
}
